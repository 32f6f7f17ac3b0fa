//! What can go wrong on the way to a certificate.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use kube::Error;

use crate::ConnectError;
use crate::connect::causes;

/// Why there is no (new) certificate. Each is one line for people, and says what to do where something can be done.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file or folder can't be read or written.
    #[error("{}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why; in the message, so not the error's source as well.
        cause: io::Error,
    },
    /// A certificate or key can't be understood.
    #[error("{what}: {reason}")]
    Pem {
        /// The file, or what else it was.
        what: String,
        /// Why.
        reason: String,
    },
    /// A key or a request for a certificate can't be made.
    #[error("making a certificate signing request: {0}")]
    Make(String),
    /// The kubeconfig is no way to the API server.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// There are no credentials to begin with.
    #[error("{0}")]
    NoWay(String),
    /// The API server does not answer.
    #[error("the API server can't be reached: {0}")]
    Unreachable(String),
    /// It does not know who asks.
    #[error(
        "the API server does not accept the credentials ({0}): a bootstrap token may be wrong, expired or deleted \
         (`kubeadm token create` on the control plane makes a new one), or the machine's clock is wrong"
    )]
    Unauthorized(String),
    /// It knows, and refuses.
    #[error("the API server refuses: {0}")]
    Refused(String),
    /// Somebody said no.
    #[error("certificate signing request {csr} was denied: {reason}")]
    Denied {
        /// The request's name.
        csr: String,
        /// Reason and message of the condition.
        reason: String,
    },
    /// The signer could not.
    #[error("certificate signing request {csr} failed: {reason}")]
    Failed {
        /// The request's name.
        csr: String,
        /// Reason and message of the condition.
        reason: String,
    },
    /// The request is gone.
    #[error("certificate signing request {csr} was deleted before it was answered")]
    Deleted {
        /// The request's name.
        csr: String,
    },
    /// Nobody answered.
    #[error(
        "certificate signing request {csr} was {} within {} s: {}", if *approved { "approved but not signed" } else { "not approved" },
        waited.as_secs(), if *approved { "does kube-controller-manager run with a signing key?".to_owned() } else {
        format!("`kubectl certificate approve {csr}` approves it") }
    )]
    Pending {
        /// The request's name.
        csr: String,
        /// Whether it was approved, and only the certificate is missing.
        approved: bool,
        /// How long was waited.
        waited: Duration,
    },
    /// What came back is not for the key that asked.
    #[error("certificate signing request {csr}: the certificate issued is for another key")]
    Foreign {
        /// The request's name.
        csr: String,
    },
}

impl CertificateError {
    /// Whether the API server does not take the credentials, so that others may be worth a try.
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Unauthorized(_))
    }

    pub(crate) fn of_api(error: &Error) -> Self {
        match error {
            Error::Api(status) if status.code == 401 => Self::Unauthorized(status.message.clone()),
            Error::Api(status) => Self::Refused(status.message.clone()),
            other => Self::Unreachable(causes(other)),
        }
    }
}
