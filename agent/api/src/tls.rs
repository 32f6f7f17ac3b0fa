//! The server's certificate, and whose clients it knows: read again whenever either changes, for connections to come.

mod files;
mod self_signed;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_effect::record;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

use self::files::Files;
use crate::ApiError;

/// Certificates and keys are some KiB, bundles of authorities may be more.
const LONGEST: u64 = 4 << 20;
/// How often a file is read whose folder can't be watched.
const CHECK: Duration = Duration::from_secs(60);
/// How often the end of a self-signed certificate is looked at.
const CHECK_END: Duration = Duration::from_hours(12);

/// Where the server's certificate comes from.
#[derive(Debug, Clone)]
pub enum Identity {
    /// Two files (PEM) that somebody else keeps (`tlsCertFile`, `tlsPrivateKeyFile`). Read again when they change.
    Files {
        /// The certificate, then what is between it and the authority.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// A certificate signed by itself for a year, kept in `dir` as `kubelet.crt` and `kubelet.key`, and made anew before
    /// its end and for other names.
    SelfSigned {
        /// The folder (`/var/lib/kubelet/pki`).
        dir: PathBuf,
        /// The node's names and addresses.
        names: Vec<String>,
    },
    /// Whatever the cluster issued last. Until there is one, connections are refused.
    Issued(watch::Receiver<Option<Issued>>),
}

/// A certificate with its key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, then what is between it and the authority.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl fmt::Debug for Issued {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Issued")
    }
}

/// What the TLS side is made of; it follows its sources.
#[derive(Debug)]
pub(crate) struct Tls {
    identity: Identity,
    client_ca: Option<PathBuf>,
    only_tls13: bool,
    in_force: Material,
    current: watch::Sender<Arc<ServerConfig>>,
}

/// What was read.
#[derive(Clone, PartialEq, Eq)]
struct Material {
    identity: Option<Issued>,
    client_ca: Option<Vec<u8>>,
}

impl fmt::Debug for Material {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Material")
    }
}

impl Tls {
    /// Reads everything once.
    pub(crate) fn open(identity: Identity, client_ca: Option<PathBuf>, only_tls13: bool) -> Result<Self, ApiError> {
        let in_force = read(&identity, client_ca.as_deref())?;
        let config = config(&in_force, client_ca.as_deref(), only_tls13)?;
        Ok(Self { identity, client_ca, only_tls13, in_force, current: watch::Sender::new(config) })
    }

    /// What applies to a connection that comes now.
    pub(crate) fn current(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.current.subscribe()
    }

    /// Takes every change; never returns. What can't be used is logged, and the old stays in force.
    pub(crate) async fn follow(mut self) -> Infallible {
        let files = Files::new(self.paths());
        let mut told = None;
        loop {
            let watched = files.watch();
            match self.take() {
                Ok(changed) => {
                    if changed {
                        tracing::info!("the API's certificates changed: connections to come use the new ones");
                    }
                    told = None;
                }
                Err(error) => {
                    let words = error.to_string();
                    if told.as_ref() != Some(&words) {
                        tracing::error!(%error, "the API's new certificates can't be used: the old ones stay in force");
                        told = Some(words);
                    }
                }
            }
            let check = if watched { CHECK_END } else { CHECK };
            match &mut self.identity {
                Identity::Issued(issued) => {
                    tokio::select! {
                        changed = issued.changed() => if changed.is_err() {
                            // Nobody issues any more.
                            files.changed(check).await;
                        },
                        () = files.changed(check) => {}
                    }
                }
                _ => files.changed(check).await,
            }
        }
    }

    fn paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = self.client_ca.iter().cloned().collect();
        if let Identity::Files { certificate, key } = &self.identity {
            paths.extend([certificate.clone(), key.clone()]);
        }
        paths
    }

    fn take(&mut self) -> Result<bool, ApiError> {
        let new = read(&self.identity, self.client_ca.as_deref())?;
        if new == self.in_force {
            return Ok(false);
        }
        self.current.send_replace(config(&new, self.client_ca.as_deref(), self.only_tls13)?);
        self.in_force = new;
        Ok(true)
    }
}

fn read(identity: &Identity, client_ca: Option<&Path>) -> Result<Material, ApiError> {
    let identity = match identity {
        Identity::Files { certificate, key } => Some(Issued { certificate: text(certificate)?, key: text(key)? }),
        Identity::SelfSigned { dir, names } => Some(self_signed::kept_or_made(dir, names)?),
        Identity::Issued(issued) => issued.borrow().clone(),
    };
    Ok(Material { identity, client_ca: client_ca.map(bytes).transpose()? })
}

fn config(material: &Material, client_ca: Option<&Path>, only_tls13: bool) -> Result<Arc<ServerConfig>, ApiError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = if only_tls13 {
        builder.with_protocol_versions(&[&rustls::version::TLS13])
    } else {
        builder.with_safe_default_protocol_versions()
    };
    let builder = builder.map_err(ApiError::Tls)?;
    let builder = match (&material.client_ca, client_ca) {
        (Some(bytes), Some(file)) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(bytes).map_err(|source| wrong(file, source))? {
                roots.add(certificate).map_err(ApiError::Tls)?;
            }
            // Who shows no certificate is judged by the request, not by the handshake.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .allow_unauthenticated()
                .build()
                .map_err(|error| wrong(file, io::Error::other(error)))?;
            builder.with_client_cert_verifier(verifier)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = match &material.identity {
        Some(issued) => {
            let (chain, key) = parsed(issued)?;
            builder.with_single_cert(chain, key).map_err(ApiError::Tls)?
        }
        None => builder.with_cert_resolver(Arc::new(NoneYet)),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Refuses all handshakes.
#[derive(Debug)]
struct NoneYet;

impl ResolvesServerCert for NoneYet {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// Certificate and key as rustls takes them.
fn parsed(issued: &Issued) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ApiError> {
    let unusable = |reason: String| ApiError::Tls(rustls::Error::General(reason));
    let chain = certificates(issued.certificate.as_bytes()).map_err(|error| unusable(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes());
    Ok((chain, key.map_err(|error| unusable(format!("the private key: {error}")))?))
}

fn certificates(pem: &[u8]) -> io::Result<Vec<CertificateDer<'static>>> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(io::Error::other)?;
    if certificates.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "holds no certificate"));
    }
    Ok(certificates)
}

fn bytes(file: &Path) -> Result<Vec<u8>, ApiError> {
    let read = record::read(file, LONGEST).and_then(|bytes| bytes.ok_or_else(|| io::ErrorKind::NotFound.into()));
    read.map_err(|source| wrong(file, source))
}

fn text(file: &Path) -> Result<String, ApiError> {
    String::from_utf8(bytes(file)?).map_err(|error| wrong(file, io::Error::new(io::ErrorKind::InvalidData, error)))
}

fn wrong(file: &Path, source: io::Error) -> ApiError {
    ApiError::File { file: file.to_path_buf(), source }
}
