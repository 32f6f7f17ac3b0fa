//! What can go wrong, one enum per door: [`PullError`] for bringing an image in, [`StoreError`] for everything else.

use std::io;
use std::path::{Path, PathBuf};

/// Why an image could not be brought in. The text is one line, with the registry's own words where it gave any.
///
/// Cloneable, because several pulls may wait for one download.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PullError {
    /// The name is not an image reference.
    #[error("invalid image reference {name:?}: {reason}")]
    Reference {
        /// What was asked for.
        name: String,
        /// Why it is none.
        reason: String,
    },
    /// The registry has no such manifest or blob.
    #[error("{what} not found: {detail}")]
    NotFound {
        /// The reference or blob.
        what: String,
        /// Host, status and the registry's words.
        detail: String,
    },
    /// The registry refuses these credentials, or wants some.
    #[error("access to {what} denied: {detail}")]
    Unauthorized {
        /// The reference or blob.
        what: String,
        /// Host, status and the registry's words.
        detail: String,
    },
    /// No usable answer from the registry: connection, TLS, time-out, 5xx, 429.
    #[error("registry unreachable for {what}: {detail}")]
    Unreachable {
        /// The reference or blob.
        what: String,
        /// Host, status or cause.
        detail: String,
    },
    /// Content differs from its digest or declared size.
    #[error("{what} does not match: expected {expected}, got {actual}")]
    DigestMismatch {
        /// The blob or layer.
        what: String,
        /// What was announced.
        expected: String,
        /// What came.
        actual: String,
    },
    /// A document, blob or unpacked layer is past its limit.
    #[error("{what} is too large: {detail}")]
    TooLarge {
        /// The document, blob or layer.
        what: String,
        /// Size and limit.
        detail: String,
    },
    /// A manifest, index or configuration that we refuse.
    #[error("refused manifest of {what}: {reason}")]
    BadManifest {
        /// The reference or blob.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A layer whose archive we refuse.
    #[error("refused layer {layer}: {reason}")]
    BadLayer {
        /// Its digest.
        layer: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store's file system is full.
    #[error("no space left for {what} in {path}")]
    DiskFull {
        /// The layer or record.
        what: String,
        /// Where.
        path: PathBuf,
    },
    /// A `hosts.toml` that can't be understood, or an unusable `--registry-config-dir`.
    #[error("registry configuration {file}: {reason}")]
    Config {
        /// The file.
        file: PathBuf,
        /// Key and reason.
        reason: String,
    },
    /// The store could not be written or read.
    #[error("image store: {0}")]
    Store(String),
}

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or folder of the store.
    #[error("{action} {path}")]
    Io {
        /// "read", "create", …
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// What the file system answered.
        #[source]
        source: io::Error,
    },
    /// A snapshot, image or layer that is not (or no longer) there.
    #[error("{what} is not in the image store")]
    Missing {
        /// Which.
        what: String,
    },
    /// A name that can't be a container's folder.
    #[error("{id:?} can't be the id of a container")]
    ContainerId {
        /// The name.
        id: String,
    },
    /// A file of an image that is past its limit.
    #[error("{path} of image {image} is larger than {limit} bytes")]
    FileTooLarge {
        /// The image's id.
        image: String,
        /// The file in the image.
        path: String,
        /// Limit in bytes.
        limit: u64,
    },
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}

impl PullError {
    /// Turns a failure of the store's file system into the pull's error, telling a full disk apart.
    pub(crate) fn from_io(what: &str, path: &Path, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { what: what.into(), path: path.into() }
            }
            _ => Self::Store(format!("{what}: {}: {error}", path.display())),
        }
    }

    /// Whether another try, or another host, may succeed where this one failed.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

impl From<StoreError> for PullError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Io { action, path, source } => Self::from_io(action, path, source),
            other => Self::Store(other.to_string()),
        }
    }
}
