//! From a kubeconfig to a client.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// A client that can be shown: the types that hold it are.
#[derive(Clone)]
pub(crate) struct Cluster(pub(crate) Client);

impl fmt::Debug for Cluster {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Cluster")
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file can't be read or does not say how to reach the API server.
    #[error("{}: {source}", file.display())]
    Kubeconfig {
        /// The kubeconfig.
        file: PathBuf,
        /// What is wrong with it.
        source: Box<KubeconfigError>,
    },
    /// Its certificates or keys can't be used.
    #[error("{}: {source}", file.display())]
    Client {
        /// The kubeconfig.
        file: PathBuf,
        /// What is wrong with it.
        source: Box<kube::Error>,
    },
}

/// A client as the kubeconfig `file` says: certificate and key as data or files, or a token. No call is made yet.
///
/// # Errors
/// The file's fault, naming it.
pub async fn connect(file: &Path) -> Result<Client, ConnectError> {
    // The first provider stays; that it is already there is no failure.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let refuse = |source| ConnectError::Kubeconfig { file: file.to_path_buf(), source: Box::new(source) };
    let kubeconfig = Kubeconfig::read_from(file).map_err(refuse)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(refuse)?;
    config.connect_timeout = Some(Duration::from_secs(10));
    Client::try_from(config)
        .map_err(|source| ConnectError::Client { file: file.to_path_buf(), source: Box::new(source) })
}
