//! What the decisions need to know of the machine; probed once at start by the caller.

use serde::{Deserialize, Serialize};

use crate::seccomp::Filters;

/// Facts about the host and about the runtime's own privileges.
#[derive(Debug, Clone)]
pub struct HostFacts {
    pub arch: Arch,
    pub cgroups: CgroupLayout,
    /// The runtime's own bounding set (`CapBnd` of /proc/self/status): what "all capabilities" can mean here.
    pub bounding: u64,
    /// Whether oom_score_adj may go below the runtime's own (CAP_SYS_RESOURCE).
    pub can_lower_oom: bool,
    /// The runtime's own /proc/self/oom_score_adj.
    pub oom_score_adj: i32,
    /// Whether AppArmor is enabled in the kernel.
    pub apparmor: bool,
    /// Whether SELinux is enabled in the kernel.
    pub selinux: bool,
    /// Whether the kernel has mount_setattr(2) (5.12), which recursive read-only mounts need.
    pub recursive_read_only: bool,
    /// The node's host name, for pods in its network namespace.
    pub hostname: String,
    /// Compiled seccomp filters, shared by all clones of these facts.
    pub filters: Filters,
}

/// Who makes the cgroups of containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CgroupDriver {
    /// The runtime, in the cgroup file systems.
    #[default]
    Cgroupfs,
    /// systemd, as scopes in slices.
    Systemd,
}

impl CgroupDriver {
    /// As the kubelet's configuration calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cgroupfs => "cgroupfs",
            Self::Systemd => "systemd",
        }
    }
}

/// Processor architectures that Berth knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Arch {
    X86_64,
    Aarch64,
}

impl Arch {
    /// The architecture that this program was built for.
    pub const NATIVE: Self = if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };
}

/// How the host mounts its cgroup file systems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CgroupLayout {
    /// Only cgroup v1 hierarchies.
    V1 { hierarchies: Vec<Hierarchy> },
    /// v1 hierarchies that hold the controllers, and a v2 tree without any at `unified/`.
    Hybrid { hierarchies: Vec<Hierarchy>, unified: UnifiedOptions },
    /// One v2 tree.
    V2 { unified: UnifiedOptions },
}

/// A cgroup v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Folder under /sys/fs/cgroup, `cpu,cpuacct`.
    pub folder: String,
    /// `cpu`, `cpuacct`; empty for a named hierarchy.
    pub controllers: Vec<String>,
    /// The name of a hierarchy without controllers, `systemd`.
    pub name: Option<String>,
}

/// Options of the cgroup v2 superblock. A mount made outside a cgroup namespace sets them for the whole machine, so it
/// must repeat what the host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UnifiedOptions {
    pub nsdelegate: bool,
    pub memory_recursiveprot: bool,
}
