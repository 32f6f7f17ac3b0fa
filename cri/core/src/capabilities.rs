//! Capabilities: names, bits, and the sets that a container gets.

use std::collections::HashSet;
#[cfg(feature = "cri")]
use std::str::FromStr;

#[cfg(feature = "cri")]
use berth_cri_proto::v1 as cri;
use berth_guard::Guard;
use berth_plan::container::Capabilities;
use oci_spec::runtime::{Capability, LinuxCapabilities};

#[cfg(feature = "cri")]
use crate::error::ConfigError;

/// Names without `CAP_`, by bit (linux/capability.h).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Every capability known here.
pub const ALL: u64 = (1 << NAMES.len()) - 1;

/// What a container has when nothing is said: containerd's 14.
pub const DEFAULT: u64 = 1 << 0 // CHOWN
    | 1 << 1 // DAC_OVERRIDE
    | 1 << 3 // FOWNER
    | 1 << 4 // FSETID
    | 1 << 5 // KILL
    | 1 << 6 // SETGID
    | 1 << 7 // SETUID
    | 1 << 8 // SETPCAP
    | 1 << 10 // NET_BIND_SERVICE
    | 1 << 13 // NET_RAW
    | 1 << 18 // SYS_CHROOT
    | 1 << 27 // MKNOD
    | 1 << 29 // AUDIT_WRITE
    | 1 << 31; // SETFCAP

/// The mask of one capability; `CAP_` and letter case do not matter.
pub fn parse(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == plain).map(|bit| 1 << bit)
}

/// Names with `CAP_`, in order of their bits.
pub fn names(mask: u64) -> impl Iterator<Item = String> {
    NAMES.iter().enumerate().filter(move |(bit, _)| mask & 1 << bit != 0).map(|(_, name)| format!("CAP_{name}"))
}

/// The sets of a container. `bounding` is the runtime's own set: it is what "all" can mean.
///
/// Inheritable stays empty (CVE-2022-29162) unless ambient capabilities are asked for, which the kernel allows only
/// within it. A process of another user than root loses permitted and effective at its execve, as with runc; that is the
/// kernel's doing.
#[cfg(feature = "cri")]
pub fn sets(asked: &cri::Capability, privileged: bool, bounding: u64) -> Result<Capabilities, ConfigError> {
    const ADD: &str = "linux.security_context.capabilities.add_capabilities";
    const DROP: &str = "linux.security_context.capabilities.drop_capabilities";
    const AMBIENT: &str = "linux.security_context.capabilities.add_ambient_capabilities";
    if privileged {
        return Ok(Capabilities { bounding, effective: bounding, permitted: bounding, inheritable: 0, ambient: 0 });
    }
    let (add_all, add) = masks(ADD, &asked.add_capabilities)?;
    let (drop_all, drop) = masks(DROP, &asked.drop_capabilities)?;
    let (ambient_all, mut ambient) = masks(AMBIENT, &asked.add_ambient_capabilities)?;
    for (field, mask) in [(ADD, add), (AMBIENT, ambient)] {
        if let Some(name) = names(mask & !bounding).next() {
            return Err(ConfigError::new(
                field,
                format!("the runtime itself does not have {name}, so it cannot give it"),
                "drop the request, or run Berth with that capability in its bounding set",
            ));
        }
    }
    // "ALL" first, so that single names can then be taken away from it or added to nothing.
    let mut set = if add_all { bounding } else { DEFAULT & bounding };
    if drop_all {
        set = 0;
    }
    set = (set | add) & !drop;
    if ambient_all {
        ambient = bounding;
    }
    set |= ambient;
    let inheritable = if Guard::NoInheritable.stands() { ambient } else { set };
    Ok(Capabilities { bounding: set, effective: set, permitted: set, inheritable, ambient })
}

#[cfg(feature = "cri")]
fn masks(field: &str, names: &[String]) -> Result<(bool, u64), ConfigError> {
    let mut all = false;
    let mut mask = 0;
    for name in names {
        if name.eq_ignore_ascii_case("ALL") {
            all = true;
        } else {
            mask |= parse(name).ok_or_else(|| {
                ConfigError::new(field, format!("{name:?} is not a capability"), "see capabilities(7) for the names")
            })?;
        }
    }
    Ok((all, mask))
}

/// The form of the OCI configuration.
#[cfg(feature = "cri")]
pub(crate) fn to_oci(sets: &Capabilities) -> LinuxCapabilities {
    let mut oci = LinuxCapabilities::default();
    oci.set_bounding(to_set(sets.bounding))
        .set_effective(to_set(sets.effective))
        .set_permitted(to_set(sets.permitted))
        .set_inheritable(to_set(sets.inheritable))
        .set_ambient(to_set(sets.ambient));
    oci
}

/// The form of the plan.
pub(crate) fn from_oci(oci: &LinuxCapabilities) -> Capabilities {
    Capabilities {
        bounding: from_set(oci.bounding()),
        effective: from_set(oci.effective()),
        permitted: from_set(oci.permitted()),
        inheritable: from_set(oci.inheritable()),
        ambient: from_set(oci.ambient()),
    }
}

#[cfg(feature = "cri")]
fn to_set(mask: u64) -> Option<HashSet<Capability>> {
    let set: HashSet<_> = NAMES
        .iter()
        .enumerate()
        .filter(|(bit, _)| mask & 1 << bit != 0)
        .filter_map(|(_, name)| Capability::from_str(name).ok())
        .collect();
    (!set.is_empty()).then_some(set)
}

fn from_set(set: &Option<HashSet<Capability>>) -> u64 {
    set.iter().flatten().filter_map(|capability| parse(&capability.to_string())).fold(0, |mask, bit| mask | bit)
}

#[cfg(all(test, feature = "cri"))]
mod tests;
