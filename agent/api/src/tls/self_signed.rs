//! The certificate of a node to which nobody gave one.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use berth_effect::record;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Issued, LONGEST, parsed, wrong};
use crate::ApiError;

const LIFE: Duration = Duration::from_hours(365 * 24);
/// Made anew this long before its end.
const SPARE: Duration = Duration::from_hours(30 * 24);

/// The one in `dir` if it is whole, good for a while and for all `names`; else a new one, kept there.
///
/// The kubelet keeps its own under these names for ever
/// (`kubernetes@v1.37.2:cmd/kubelet/app/server.go#InitializeTLS`); an ended one only breaks clients that look.
pub(crate) fn kept_or_made(dir: &Path, names: &[String]) -> Result<Issued, ApiError> {
    let (certificate, key) = (dir.join("kubelet.crt"), dir.join("kubelet.key"));
    let now = SystemTime::now();
    let read = |path: &Path| {
        let bytes = record::read(path, LONGEST).ok()??;
        String::from_utf8(bytes).ok()
    };
    if let (Some(certificate), Some(key)) = (read(&certificate), read(&key)) {
        let kept = Issued { certificate, key };
        if is_good(&kept, names, now) {
            return Ok(kept);
        }
    }
    let made = make(names, now).map_err(|error| ApiError::SelfSigned(error.to_string()))?;
    if !dir.is_dir() {
        berth_effect::run("certificates-folder-make", || fs::create_dir_all(dir)).map_err(|error| wrong(dir, error))?;
    }
    // A crash between the two leaves a pair that does not match, and so a new one.
    record::write_durable(&key, made.key.as_bytes()).map_err(|error| wrong(&key, error))?;
    record::write_durable(&certificate, made.certificate.as_bytes()).map_err(|error| wrong(&certificate, error))?;
    Ok(made)
}

fn make(names: &[String], now: SystemTime) -> Result<Issued, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.not_before = (now - Duration::from_hours(1)).into();
    params.not_after = (now + LIFE).into();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, names.first().map_or("kubelet", String::as_str));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn is_good(kept: &Issued, names: &[String], now: SystemTime) -> bool {
    let Ok((chain, key)) = parsed(kept) else { return false };
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    if rustls::sign::CertifiedKey::from_der(chain.clone(), key, &provider).is_err() {
        return false;
    }
    let Some(Ok((_, certificate))) = chain.first().map(|der| X509Certificate::from_der(der)) else { return false };
    let end = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    if SystemTime::UNIX_EPOCH + Duration::from_secs(end) < now + SPARE {
        return false;
    }
    let Ok(Some(alternative)) = certificate.subject_alternative_name() else { return names.is_empty() };
    names.iter().all(|name| {
        alternative.value.general_names.iter().any(|general| match general {
            GeneralName::DNSName(dns) => dns == name,
            GeneralName::IPAddress(bytes) => match name.parse() {
                Ok(IpAddr::V4(v4)) => *bytes == v4.octets(),
                Ok(IpAddr::V6(v6)) => *bytes == v6.octets(),
                Err(_) => false,
            },
            _ => false,
        })
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_kept_while_it_serves() {
        let dir = tempfile::tempdir().expect("a folder");
        let pki = dir.path().join("kubelet/pki");
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let first = kept_or_made(&pki, &names(&["n", "10.0.0.7"])).expect("made");
        for name in ["kubelet.crt", "kubelet.key"] {
            let mode = fs::metadata(pki.join(name)).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(kept_or_made(&pki, &names(&["10.0.0.7"])).expect("kept"), first);
        let second = kept_or_made(&pki, &names(&["n", "10.0.0.8"])).expect("made for the new address");
        assert_ne!(second, first);
        fs::write(pki.join("kubelet.crt"), &first.certificate).expect("writes");
        let third = kept_or_made(&pki, &names(&["n"])).expect("made as the halves do not match");
        assert!(third != first && third != second);
        let now = SystemTime::now();
        assert!(is_good(&third, &[], now) && !is_good(&third, &[], now + LIFE - SPARE + Duration::from_secs(1)));
    }
}
