//! The server's certificate, and whose clients it believes.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Where certificates come from.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// Chain and key, both PEM (`tlsCertFile`, `tlsPrivateKeyFile`). Without them one is made for the node.
    pub serving: Option<(PathBuf, PathBuf)>,
    /// Who signs clients (`authentication.x509.clientCAFile`). Without it no client can be told from another.
    pub client_ca: Option<PathBuf>,
    /// A certificate of our own is kept here, as the kubelet keeps `pki/kubelet.crt` and `kubelet.key`.
    pub own: PathBuf,
}

/// Why the server can't have a certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file can't be read or holds nothing of use.
    #[error("{path}: {reason}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate of our own can't be made or kept.
    #[error("making a serving certificate under {path}: {reason}")]
    Own {
        /// The folder.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// The key and certificate don't fit, or the client CA is of no use.
    #[error("TLS configuration: {0}")]
    Config(#[from] rustls::Error),
    /// The client CA is of no use.
    #[error("client CA: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The server's side of TLS for a node called `name` at `addresses`. Clients may come without a certificate: they are
/// then told 401, which says more than a broken handshake.
///
/// # Errors
/// See [`TlsError`].
pub fn server_config(files: &TlsFiles, name: &str, addresses: &[IpAddr]) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let (chain, key) = match &files.serving {
        Some((certificate, key)) => (certificates(certificate)?, private_key(key)?),
        None => own_certificate(&files.own, name, addresses)?,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match &files.client_ca {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates(path)?);
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated().build()?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn pem_error(path: &Path, reason: impl ToString) -> TlsError {
    TlsError::Pem { path: path.to_owned(), reason: reason.to_string() }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| pem_error(path, error))?.collect();
    let found = found.map_err(|error| pem_error(path, error))?;
    if found.is_empty() {
        return Err(pem_error(path, "holds no certificate"));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| pem_error(path, error))
}

/// Reads the certificate that an earlier run kept, or makes one. It lives as long as the folder: the API server does not
/// check it (`kubernetes@v1.37.2:cmd/kubelet/app/server.go#InitializeTLS`).
fn own_certificate(
    folder: &Path,
    name: &str,
    addresses: &[IpAddr],
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let (certificate, key) = (folder.join("kubelet.crt"), folder.join("kubelet.key"));
    if certificate.exists() && key.exists() {
        return Ok((certificates(&certificate)?, private_key(&key)?));
    }
    let failed = |reason: String| TlsError::Own { path: folder.to_owned(), reason };
    let keep = |path: &Path, text: &str| -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        berth_effect::record::write_durable(path, text.as_bytes())
    };
    let pair = KeyPair::generate().map_err(|error| failed(error.to_string()))?;
    let mut params =
        CertificateParams::new(vec![name.to_owned()]).map_err(|error| failed(format!("name {name:?}: {error}")))?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("{name}@berth"));
    params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let signed = params.self_signed(&pair).map_err(|error| failed(error.to_string()))?;
    // The key first: a certificate on disk then always has its key.
    keep(&key, &pair.serialize_pem()).map_err(|error| failed(error.to_string()))?;
    keep(&certificate, &signed.pem()).map_err(|error| failed(error.to_string()))?;
    Ok((vec![signed.der().clone()], PrivateKeyDer::Pkcs8(pair.serialize_der().into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_of_our_own_is_made_once_and_kept() {
        let folder = tempfile::tempdir().expect("folder");
        let files = TlsFiles { own: folder.path().join("pki"), ..TlsFiles::default() };
        let address: IpAddr = "10.0.0.1".parse().expect("address");
        server_config(&files, "node-1", &[address]).expect("made");
        let first = std::fs::read(folder.path().join("pki/kubelet.crt")).expect("kept");
        server_config(&files, "node-1", &[address]).expect("read again");
        assert_eq!(std::fs::read(folder.path().join("pki/kubelet.crt")).expect("kept"), first);
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("ca.crt");
        std::fs::write(&path, "nothing").expect("written");
        let files = TlsFiles { own: folder.path().join("pki"), client_ca: Some(path), ..TlsFiles::default() };
        let error = server_config(&files, "node-1", &[]).expect_err("refused").to_string();
        assert!(error.contains("ca.crt: holds no certificate"), "{error}");
    }
}
