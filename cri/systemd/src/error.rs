//! What can go wrong with systemd.

use std::io;

use berth_cgroup::CgroupError;

use crate::wire::Malformed;

#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    #[error(
        "the systemd cgroup driver needs a machine that systemd runs (there is no /run/systemd/system); use the cgroupfs \
         driver"
    )]
    NotBooted,
    #[error(
        "the systemd cgroup driver needs cgroup v2 alone; boot with systemd.unified_cgroup_hierarchy=1, or use the \
         cgroupfs driver"
    )]
    NotUnified,
    #[error("{act}: {source}")]
    Io { act: String, source: io::Error },
    #[error("{act}: systemd has not answered within {seconds} s")]
    Silent { act: String, seconds: u64 },
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// systemd's own words.
    #[error("systemd refuses {call}: {message} ({error})")]
    Refused { call: String, error: String, message: String },
    #[error("systemd could not {act} unit {unit}: its job ended with {result:?}")]
    Job { act: &'static str, unit: String, result: String },
    #[error("unit {unit} exists already and is not the container's: {reason}")]
    Taken { unit: String, reason: String },
    #[error("{field}: {reason}")]
    Value { field: String, reason: String },
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

impl SystemdError {
    /// Whether systemd says that it knows no such unit (any more).
    pub fn is_no_unit(&self) -> bool {
        matches!(self, Self::Refused { error, .. } if error == "org.freedesktop.systemd1.NoSuchUnit")
    }

    pub(crate) fn is_taken(&self) -> bool {
        matches!(self, Self::Refused { error, .. } if error == "org.freedesktop.systemd1.UnitExists")
    }
}
