//! Pins of the cluster's authority: `sha256:` and the hash of its public key.

use std::collections::BTreeSet;

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::JoinError;

/// Accepted public keys, by the SHA-256 of their SubjectPublicKeyInfo in DER
/// (`kubernetes@v1.37.2:cmd/kubeadm/app/util/pubkeypin`). Empty accepts nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pins(BTreeSet<[u8; 32]>);

impl Pins {
    /// Reads `sha256:HEX` each; upper and lower case are the same.
    ///
    /// # Errors
    /// [`JoinError::PinForm`].
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, JoinError> {
        texts.iter().map(|text| pin(text.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of the certificates of this PEM bundle has a pinned key.
    ///
    /// # Errors
    /// [`JoinError::PinMismatch`] with the hashes found, [`JoinError::Authority`] when it holds no certificate.
    pub(crate) fn check(&self, bundle: &[u8]) -> Result<(), JoinError> {
        let found = hashes(bundle)?;
        if found.iter().any(|hash| self.0.contains(hash)) {
            return Ok(());
        }
        let found = found.iter().map(show).collect::<Vec<_>>().join(", ");
        Err(JoinError::PinMismatch { found })
    }
}

/// Of each certificate of a PEM bundle.
fn hashes(bundle: &[u8]) -> Result<Vec<[u8; 32]>, JoinError> {
    let certificates = certificates(bundle)?;
    let hash = |certificate: &CertificateDer<'_>| {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| JoinError::Authority(e.to_string()))?;
        let hash = digest(&SHA256, parsed.tbs_certificate.subject_pki.raw);
        <[u8; 32]>::try_from(hash.as_ref()).map_err(|_| JoinError::Authority("a hash of another length".to_owned()))
    };
    certificates.iter().map(hash).collect()
}

/// The certificates of a PEM bundle, at least one.
pub(crate) fn certificates(bundle: &[u8]) -> Result<Vec<CertificateDer<'static>>, JoinError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(bundle)
        .collect::<Result<_, _>>()
        .map_err(|error| JoinError::Authority(error.to_string()))?;
    if certificates.is_empty() {
        return Err(JoinError::Authority("it holds no certificate".to_owned()));
    }
    Ok(certificates)
}

fn pin(text: &str) -> Result<[u8; 32], JoinError> {
    let wrong =
        |reason: &str| JoinError::PinForm { given: text.chars().take(100).collect(), reason: reason.to_owned() };
    let (format, hex) = text.split_once(':').ok_or_else(|| wrong("is not of the form sha256:HEX"))?;
    if !format.eq_ignore_ascii_case("sha256") {
        return Err(wrong("is of an unknown kind: sha256 is the one there is"));
    }
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong("is not 64 hexadecimal digits after sha256:"));
    }
    let mut hash = [0; 32];
    for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).map_err(|_| wrong("is not hexadecimal"))?;
    }
    Ok(hash)
}

fn show(hash: &[u8; 32]) -> String {
    hash.iter().fold(String::from("sha256:"), |mut text, byte| {
        text.push_str(&format!("{byte:02x}"));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate and its pin, made by openssl (`x509 -pubkey | rsa -pubin -outform der | sha256`).
    const CERTIFICATE: &str = include_str!("../tests/data/ca.crt");
    const PIN: &str = include_str!("../tests/data/ca.pin");

    #[test]
    fn a_pin_is_what_openssl_computes() {
        let pin = PIN.trim();
        Pins::parse(&[pin]).expect("a pin").check(CERTIFICATE.as_bytes()).expect("pinned");
        let upper = format!("SHA256:{}", pin["sha256:".len()..].to_uppercase());
        Pins::parse(&[upper]).expect("a pin").check(CERTIFICATE.as_bytes()).expect("pinned");
    }

    #[test]
    fn another_key_is_named_with_its_hash() {
        let other = format!("sha256:{}", "0".repeat(64));
        let pins = Pins::parse(&[other]).expect("a pin");
        let error = pins.check(CERTIFICATE.as_bytes()).expect_err("another key").to_string();
        assert!(error.contains(PIN.trim()), "{error}");
        Pins::default().check(CERTIFICATE.as_bytes()).expect_err("nothing is pinned");
        pins.check(b"no PEM").expect_err("no certificate");
    }

    #[test]
    fn what_is_no_pin_is_refused() {
        let long = "0".repeat(65);
        for bad in ["", "sha256", "sha256:", "md5:00", &format!("sha256:{long}"), &format!("sha256:{}", "g".repeat(64))]
        {
            Pins::parse(&[bad]).expect_err(bad);
        }
    }
}
