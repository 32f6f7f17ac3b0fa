//! What goes wrong between us and the kernel.

use std::io;

/// An error of a netlink exchange.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The socket itself failed.
    #[error("netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// The kernel refused.
    #[error("{operation}: {source}{}", words(.message))]
    Refused {
        /// What was asked for.
        operation: String,
        /// The kernel's errno.
        source: io::Error,
        /// The kernel's explanation, when it gave one.
        message: Option<String>,
    },
    /// The kernel did not answer in time.
    #[error("{operation}: no answer from the kernel within {seconds} s")]
    Timeout { operation: String, seconds: u64 },
    /// The kernel's answer can't be understood.
    #[error("{operation}: malformed answer from the kernel: {reason}")]
    Malformed { operation: String, reason: String },
    /// The tables changed while they were being read, again and again.
    #[error("{operation}: interrupted by other changes too often")]
    Interrupted { operation: String },
}

impl NetError {
    /// The kernel's errno, if it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// There is no such link, address, route, table or element.
    pub fn is_not_found(&self) -> bool {
        matches!(self.errno(), Some(libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL))
    }

    /// It is there already.
    pub fn is_existing(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }
}

fn words(message: &Option<String>) -> String {
    message.as_ref().map(|message| format!(" ({message})")).unwrap_or_default()
}
