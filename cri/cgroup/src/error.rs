//! What can go wrong with a cgroup.

use std::io;
use std::path::{Path, PathBuf};

/// Each names the file or path.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// "create", "write 5 to", …
        action: String,
        path: PathBuf,
        source: io::Error,
    },
    #[error("no cgroup file system is mounted below /sys/fs/cgroup")]
    NotMounted,
    #[error("cgroup path {path:?} {reason}")]
    Path { path: String, reason: &'static str },
    #[error("{what} can't be limited: {reason}")]
    Unsupported {
        /// A field of the resources.
        what: &'static str,
        reason: String,
    },
    #[error("{field}: {reason}")]
    Setting { field: String, reason: String },
    #[error("cgroup {path} still has processes after {waited_ms} ms: {pids:?}")]
    Busy { path: String, waited_ms: u64, pids: Vec<i32> },
}

impl CgroupError {
    pub(crate) fn io(action: impl Into<String>, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// The errno behind it, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
