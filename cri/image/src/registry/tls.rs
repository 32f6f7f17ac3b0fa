//! TLS settings of one endpoint.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::PullError;
use crate::hosts::Endpoint;

/// Where distributions keep the certificate authorities that they trust, as OpenSSL and Go look for them.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const PEM_LIMIT: u64 = 16 << 20;

pub(super) fn config(endpoint: &Endpoint) -> Result<ClientConfig, PullError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let fail = |file: &Path, reason: String| PullError::Config { file: file.to_path_buf(), reason };
    let unnamed = |error: &dyn std::error::Error| fail(Path::new(&endpoint.authority), error.to_string());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| unnamed(&error))?;
    let builder = if endpoint.tls.skip_verify {
        builder.dangerous().with_custom_certificate_verifier(berth_tls::Anybody::new(&provider))
    } else {
        let mut roots = RootCertStore::empty();
        // Reading some hundred certificates takes milliseconds: not for plain http.
        if endpoint.scheme == "https" {
            system(&mut roots);
            for file in &endpoint.tls.ca {
                for certificate in certificates(file)? {
                    roots.add(certificate).map_err(|error| fail(file, format!("ca: {error}")))?;
                }
            }
        }
        builder.with_root_certificates(roots)
    };
    let Some((certificate, key)) = &endpoint.tls.client else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(certificate)?;
    let secret =
        PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| fail(key, format!("client key: {error}")))?;
    builder.with_client_auth_cert(chain, secret).map_err(|error| fail(certificate, format!("client: {error}")))
}

fn system(roots: &mut RootCertStore) {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let files = named.into_iter().chain(BUNDLES.iter().map(PathBuf::from));
    for file in files {
        if let Ok(certificates) = certificates(&file) {
            // A bundle may hold certificates that rustls does not take; the others still count.
            roots.add_parsable_certificates(certificates);
            return;
        }
    }
    tracing::warn!("no bundle of certificate authorities found: every https registry will be refused");
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, PullError> {
    let pem = read(file)?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let fail = |reason: String| PullError::Config { file: file.to_path_buf(), reason };
    match parsed {
        Ok(certificates) if certificates.is_empty() => Err(fail("holds no certificate".into())),
        other => other.map_err(|error| fail(error.to_string())),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, PullError> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|open| open.take(PEM_LIMIT).read_to_end(&mut bytes));
    read.map_err(|error| PullError::Config { file: file.to_path_buf(), reason: error.to_string() })?;
    Ok(bytes)
}
