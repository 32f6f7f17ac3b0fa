//! Why a pod's volumes are not ready.

use std::io;
use std::path::PathBuf;

use crate::ObjectError;

/// Why a volume could not be made. [`VolumeError::is_waiting`] tells what time may heal from what only a new pod can.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// An object that the volume shows is not there (yet).
    #[error("MountVolume.SetUp failed for volume {volume:?} : {source}")]
    Object {
        /// The volume's name in the pod.
        volume: String,
        /// Which object, and why.
        source: ObjectError,
    },
    /// An object lacks a key that the volume names.
    #[error("MountVolume.SetUp failed for volume {volume:?} : references non-existent {what} key: {key}")]
    MissingKey {
        /// The volume's name in the pod.
        volume: String,
        /// `config` or `secret`, as the kubelet writes it.
        what: &'static str,
        /// The key.
        key: String,
    },
    /// A host path is not what `hostPath.type` promises.
    #[error("MountVolume.SetUp failed for volume {volume:?} : hostPath type check failed: {reason}")]
    HostPathType {
        /// The volume's name in the pod.
        volume: String,
        /// The path and what is wrong with it.
        reason: String,
    },
    /// A source that Berth does not implement.
    #[error("spec.volumes[{index}].{field}: Berth does not implement this volume source")]
    Unsupported {
        /// Index in `spec.volumes`.
        index: usize,
        /// The source's field name.
        field: String,
    },
    /// A value in the volume's source makes no sense.
    #[error("spec.volumes[{index}].{field}: {reason}")]
    Invalid {
        /// Index in `spec.volumes`.
        index: usize,
        /// The field below it.
        field: String,
        /// What is wrong.
        reason: String,
    },
    /// The pod carries no UID or name: nothing can be laid out for it.
    #[error("metadata.{field}: missing; a pod's volumes lie under it")]
    NoIdentity {
        /// The missing field.
        field: &'static str,
    },
    /// The file system said no.
    #[error("MountVolume.SetUp failed for volume {volume:?} : {action} {}: {source}", path.display())]
    Io {
        /// The volume's name in the pod.
        volume: String,
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
}

impl VolumeError {
    /// Whether waiting may help: the pod stays in ContainerCreating and is tried again. What is not waiting is refused
    /// until the pod changes (CreateContainerConfigError).
    pub fn is_waiting(&self) -> bool {
        match self {
            Self::Object { .. } | Self::MissingKey { .. } | Self::HostPathType { .. } | Self::Io { .. } => true,
            Self::Unsupported { .. } | Self::Invalid { .. } | Self::NoIdentity { .. } => false,
        }
    }
}

/// One thing that [`crate::teardown`] could not undo.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}: {source}", path.display())]
pub struct TeardownError {
    /// What was tried.
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What the kernel answered.
    pub source: io::Error,
}
