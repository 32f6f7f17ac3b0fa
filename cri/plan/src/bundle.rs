//! A container as an OCI bundle describes it: what `berth-oci` executes beyond a [`Container`].
//!
//! Nothing here is sent anywhere: the launcher's fork reads it in its copy of the launcher's memory.

use crate::container::{Container, Mount};

/// Everything about the creation of a container of `berth-oci`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Its `mounts` are empty, and so are `user` and `pid_from`: see below.
    pub container: Container,
    pub mounts: Vec<BundleMount>,
    pub user: UserNamespace,
    /// Namespaces to enter, by their paths on the host; never a mount or user namespace.
    pub joins: Vec<Join>,
    /// A new time namespace, with its clocks as the kernel takes them: lines of `CLOCK SECONDS NANOSECONDS`.
    pub time_offsets: Option<String>,
    pub domainname: Option<String>,
    /// Whether the launcher has hooks to run before the change of roots.
    pub runtime_hooks: bool,
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
    /// For the hooks at create, and for those at start.
    pub state: State,
    pub start_state: State,
    /// Changes the root by moving the mount and chroot(2): for a root file system that pivot_root(2) refuses (initramfs).
    pub no_pivot: bool,
    pub more: More,
}

/// Whose ids the container has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum UserNamespace {
    /// The runtime's.
    #[default]
    Host,
    New(IdMaps),
    /// One that exists, by its path on the host.
    Joined(String),
}

/// Ids of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdMaps {
    pub users: Vec<IdMap>,
    pub groups: Vec<IdMap>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMap {
    pub inside: u32,
    pub outside: u32,
    pub length: u32,
}

impl IdMaps {
    /// As the kernel takes those of users.
    pub fn users(&self) -> String {
        lines(&self.users)
    }

    /// As the kernel takes those of groups.
    pub fn groups(&self) -> String {
        lines(&self.groups)
    }
}

fn lines(maps: &[IdMap]) -> String {
    maps.iter().map(|map| format!("{} {} {}\n", map.inside, map.outside, map.length)).collect()
}

/// One mount, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleMount {
    pub mount: Mount,
    /// `MOUNT_ATTR_*` of all mounts of a bound tree, in addition to the mount's own.
    pub recursive_set: u64,
    pub recursive_clear: u64,
    /// Shows a bound path's files with these ids, of all mounts of the tree where `recursive_ids`.
    pub ids: Option<IdMaps>,
    pub recursive_ids: bool,
    /// For a cgroup mount without a cgroup namespace: the host's paths to bind, one for each of the mount's hierarchies.
    pub cgroups: Vec<String>,
    /// Fills a new file system with what it covers.
    pub copy_up: bool,
}

/// A namespace that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    pub kind: NamespaceKind,
    /// On the host.
    pub path: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamespaceKind {
    Cgroup,
    Ipc,
    Net,
    Pid,
    Time,
    Uts,
}

/// A program that is run at a certain moment of a container's life, with its state on standard input.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hook {
    /// Absolute.
    pub path: String,
    /// With the program's name; the path stands in for an empty list.
    pub args: Vec<String>,
    pub env: Vec<String>,
    /// Seconds.
    pub timeout: Option<u32>,
}

/// A container's state in JSON, in two halves between which the process's number belongs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    pub before: String,
    pub after: String,
}

impl State {
    pub fn of(&self, pid: i32) -> String {
        format!("{}{pid}{}", self.before, self.after)
    }
}

/// What a process of a bundle has beyond [`crate::container::Process`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct More {
    pub scheduler: Option<Scheduler>,
    pub io_priority: Option<IoPriority>,
    pub personality: Option<u64>,
    pub memory_policy: Option<MemoryPolicy>,
    /// Processors that an exec'd process may use, from the moment that it is in the container.
    pub processors: Vec<u32>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub seccomp_flags: u64,
    /// Whether the filter has a listener, which goes to the launcher.
    pub seccomp_listener: bool,
    /// How many of the launcher's descriptors from 3 up the process gets.
    pub kept_descriptors: u32,
    /// Whether the process stays with the session keyring that it inherits.
    pub inherits_keyring: bool,
}

/// As sched_setattr(2) takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scheduler {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// As ioprio_set(2) takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoPriority {
    pub class: u32,
    pub priority: u32,
}

/// As set_mempolicy(2) takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPolicy {
    pub mode: u32,
    pub nodes: Vec<u32>,
}

/// One more process in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleExec {
    pub process: crate::container::Process,
    pub more: More,
    /// Whether the container is in another user namespace than the runtime, and in another time namespace.
    pub user: bool,
    pub time: bool,
}
