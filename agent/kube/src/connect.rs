//! From a kubeconfig to a client.

use std::error::Error;
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
    connect_as(file, read(file)?).await
}

/// Reads a kubeconfig; paths in it become absolute.
pub(crate) fn read(file: &Path) -> Result<Kubeconfig, ConnectError> {
    Kubeconfig::read_from(file).map_err(|source| refuse(file, source))
}

/// As [`connect`], of what was read from `file` and perhaps changed since.
pub(crate) async fn connect_as(file: &Path, kubeconfig: Kubeconfig) -> Result<Client, ConnectError> {
    // The first provider stays; that it is already there is no failure.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let mut config = config.map_err(|source| refuse(file, source))?;
    config.connect_timeout = Some(Duration::from_secs(10));
    Client::try_from(config)
        .map_err(|source| ConnectError::Client { file: file.to_path_buf(), source: Box::new(source) })
}

fn refuse(file: &Path, source: KubeconfigError) -> ConnectError {
    ConnectError::Kubeconfig { file: file.to_path_buf(), source: Box::new(source) }
}

/// An error with all that led to it, each said once: the first of a chain often says no more than "client error".
pub(crate) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{words}")]
    struct Link {
        words: &'static str,
        source: Option<Box<Link>>,
    }

    #[test]
    fn causes_are_said_once() {
        let inner = Link { words: "Connection refused", source: None };
        let middle = Link { words: "tcp connect", source: Some(Box::new(inner)) };
        let outer = Link { words: "client error: tcp connect", source: Some(Box::new(middle)) };
        assert_eq!(causes(&outer), "client error: tcp connect: Connection refused");
    }
}
