//! Why the runtime does not start.

use std::io;
use std::path::{Path, PathBuf};

/// A reason not to start, in one line.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("another runtime uses {}: process {pid}", state.display())]
    Locked {
        state: PathBuf,
        /// As that process wrote it into the lock; 0 when it could not be read.
        pid: i32,
    },
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// "create", "lock", …
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("the image store: {0}")]
    Images(#[from] berth_image::StoreError),
    #[error("start-up ended abnormally: {0}")]
    Abnormal(#[source] tokio::task::JoinError),
    #[error("cgroups: {0}")]
    Cgroups(#[from] berth_cgroup::CgroupError),
    #[error(transparent)]
    Systemd(#[from] berth_systemd::SystemdError),
}

impl OpenError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
