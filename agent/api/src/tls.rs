//! The server's certificate, and whose clients it knows.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::ApiError;

/// What the TLS side is made of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identity<'a> {
    pub(crate) files: Option<&'a (PathBuf, PathBuf)>,
    /// Names and addresses of a self-signed certificate.
    pub(crate) names: &'a [String],
    pub(crate) client_ca_file: Option<&'a Path>,
}

pub(crate) fn config(identity: &Identity<'_>) -> Result<Arc<ServerConfig>, ApiError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(ApiError::Tls)?;
    let builder = match identity.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(ApiError::Tls)?;
            }
            // Who shows no certificate is judged by the request, not by the handshake.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| read(file, io::Error::other(error)))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let (chain, key) = match identity.files {
        Some((certificate, key)) => (certificates(certificate)?, private_key(key)?),
        None => self_signed(identity.names)?,
    };
    let mut config = builder.with_single_cert(chain, key).map_err(ApiError::Tls)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, ApiError> {
    let wrong = |error| read(file, io::Error::other(error));
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(file).map_err(wrong)?.collect::<Result<_, _>>().map_err(wrong)?;
    if certificates.is_empty() {
        return Err(read(file, io::Error::new(io::ErrorKind::InvalidData, "holds no certificate")));
    }
    Ok(certificates)
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, ApiError> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| read(file, io::Error::other(error)))
}

fn self_signed(names: &[String]) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ApiError> {
    let made = rcgen::generate_simple_self_signed(names).map_err(|error| ApiError::SelfSigned(error.to_string()))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    Ok((vec![made.cert.der().clone()], key))
}

fn read(file: &Path, source: io::Error) -> ApiError {
    ApiError::File { file: file.to_path_buf(), source }
}
