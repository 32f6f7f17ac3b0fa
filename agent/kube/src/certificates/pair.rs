//! A certificate with its key.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::CertificateError;

/// A certificate (chain) and its key, both PEM. Shown without the key.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    certificate: String,
    key: String,
    not_before: SystemTime,
    not_after: SystemTime,
    /// When it came, so far as that is known: its file's time.
    pub(crate) obtained: Option<SystemTime>,
}

impl Pair {
    /// Of two PEM texts. `certificate`: the node's own first, then intermediate ones.
    ///
    /// # Errors
    /// [`CertificateError::Pem`] when either can't be understood.
    pub fn new(certificate: &str, key: &str) -> Result<Self, CertificateError> {
        let chain = only(certificate, |label| label == "CERTIFICATE");
        let key = only(key, |label| label.ends_with("PRIVATE KEY"));
        let wrong = |what: &str, reason: String| CertificateError::Pem { what: what.to_owned(), reason };
        let leaf = CertificateDer::from_pem_slice(chain.as_bytes())
            .map_err(|error| wrong("the certificate", error.to_string()))?;
        PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| wrong("the private key", error.to_string()))?;
        let (_, parsed) =
            X509Certificate::from_der(&leaf).map_err(|error| wrong("the certificate", error.to_string()))?;
        let validity = parsed.validity();
        let (not_before, not_after) = (time(validity.not_before), time(validity.not_after));
        Ok(Self { certificate: chain, key, not_before, not_after, obtained: None })
    }

    /// Of one PEM text that holds both, as the store's files do.
    ///
    /// # Errors
    /// As [`Pair::new`].
    pub fn from_pem(text: &str) -> Result<Self, CertificateError> {
        Self::new(text, text)
    }

    /// The certificate, then the key: what the store's files hold.
    pub fn to_pem(&self) -> String {
        format!("{}{}", self.certificate, self.key)
    }

    /// The certificate and what is between it and the authority, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The key, PEM.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// From when it is good.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// Until when it is good.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whether it is good at `now`. One that is not good *yet* counts: it is the signer's clock that decides.
    pub fn is_valid(&self, now: SystemTime) -> bool {
        now < self.not_after
    }

    /// Whether the certificate is for `names`, addresses among them: all of them, others do no harm.
    pub fn is_for(&self, names: &[String]) -> bool {
        let Ok(leaf) = CertificateDer::from_pem_slice(self.certificate.as_bytes()) else { return false };
        let Ok((_, parsed)) = X509Certificate::from_der(&leaf) else { return false };
        let Ok(Some(extension)) = parsed.subject_alternative_name() else { return names.is_empty() };
        let has = |name: &String| {
            use x509_parser::extensions::GeneralName;
            extension.value.general_names.iter().any(|general| match general {
                GeneralName::DNSName(dns) => dns == name,
                GeneralName::IPAddress(bytes) => name.parse().is_ok_and(|ip| match ip {
                    std::net::IpAddr::V4(v4) => *bytes == v4.octets(),
                    std::net::IpAddr::V6(v6) => *bytes == v6.octets(),
                }),
                _ => false,
            })
        };
        names.iter().all(has)
    }

    /// The certificate's common name: `system:node:NAME` for a node.
    pub fn common_name(&self) -> Option<String> {
        let leaf = CertificateDer::from_pem_slice(self.certificate.as_bytes()).ok()?;
        let (_, parsed) = X509Certificate::from_der(&leaf).ok()?;
        let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
        Some(name.to_owned())
    }

    /// The public key that the certificate is for: SubjectPublicKeyInfo, DER.
    pub(crate) fn public_key(&self) -> Option<Vec<u8>> {
        let leaf = CertificateDer::from_pem_slice(self.certificate.as_bytes()).ok()?;
        let (_, parsed) = X509Certificate::from_der(&leaf).ok()?;
        Some(parsed.public_key().raw.to_vec())
    }

    pub(crate) fn in_file(file: &Path, text: &str) -> Result<Self, CertificateError> {
        Self::from_pem(text).map_err(|error| match error {
            CertificateError::Pem { what, reason } => {
                CertificateError::Pem { what: format!("{}: {what}", file.display()), reason }
            }
            other => other,
        })
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Pair")
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

fn time(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let at = if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    at.unwrap_or(UNIX_EPOCH)
}

/// The PEM sections of `text` whose label `wanted` takes, whole and in their order.
fn only(text: &str, wanted: impl Fn(&str) -> bool) -> String {
    let mut out = String::new();
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        let label = |prefix: &str| line.strip_prefix(prefix).and_then(|rest| rest.strip_suffix("-----"));
        if label("-----BEGIN ").is_some_and(&wanted) {
            inside = true;
        }
        if inside {
            out.push_str(line);
            out.push('\n');
        }
        if label("-----END ").is_some() {
            inside = false;
        }
    }
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A pair signed by itself, good for `seconds` from 2026-11-24T00:00:00Z.
    pub(crate) fn pair(names: &[&str], seconds: u64) -> Pair {
        let mut params =
            rcgen::CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).expect("names");
        params.not_before = rcgen::date_time_ymd(2026, 11, 24);
        params.not_after = params.not_before + Duration::from_secs(seconds);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Pair::new(&certificate.pem(), &key.serialize_pem()).expect("a pair")
    }

    #[test]
    fn a_pair_survives_its_file_and_hides_its_key() {
        let pair = pair(&["node-1", "10.0.0.7"], 600);
        let again = Pair::from_pem(&pair.to_pem()).expect("reads");
        assert_eq!(again, pair);
        assert_eq!(pair.not_after().duration_since(pair.not_before()).expect("ordered"), Duration::from_secs(600));
        assert!(!format!("{pair:?}").contains("PRIVATE"), "{pair:?}");
        assert!(pair.is_valid(pair.not_after() - Duration::from_secs(1)) && !pair.is_valid(pair.not_after()));
    }

    #[test]
    fn names_are_compared_by_what_they_are() {
        let pair = pair(&["node-1", "10.0.0.7", "fd00::1"], 600);
        let names = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert!(pair.is_for(&names(&["10.0.0.7", "node-1", "fd00:0::1"])));
        assert!(!pair.is_for(&names(&["node-2"])) && !pair.is_for(&names(&["10.0.0.8"])));
    }

    #[test]
    fn what_is_no_pair_says_which_half() {
        let good = pair(&["a"], 1);
        let error = Pair::new("", good.key()).expect_err("no certificate").to_string();
        assert!(error.starts_with("the certificate: "), "{error}");
        let error = Pair::new(good.certificate(), "-----BEGIN PRIVATE KEY-----\n").expect_err("no key").to_string();
        assert!(error.starts_with("the private key: "), "{error}");
    }
}
