//! What the executor does to turn a fork into a container, in the order in which it does it.

/// Namespaces that the child gets for itself; what is not set is inherited from the shim, which sits in the sandbox's
/// network, IPC and UTS namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NewNamespaces {
    pub mount: bool,
    pub pid: bool,
    pub cgroup: bool,
    pub ipc: bool,
    pub uts: bool,
    pub net: bool,
}

/// Whose PID namespace a container's first process is born into, where it gets none of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PidFrom {
    /// The shim's, which is the node's.
    #[default]
    Shim,
    /// The pod's, whose process 1 the shim keeps.
    Pod,
    /// That of another running container of the sandbox.
    Container(String),
}

/// Ids of a user namespace: 0 to `length` - 1 inside are `host` and up outside, for users and groups alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    pub host: u32,
    pub length: u32,
}

impl IdRange {
    /// What an id inside is outside; `None` where it is not mapped.
    pub fn outside(self, id: u32) -> Option<u32> {
        if id < self.length { self.host.checked_add(id) } else { None }
    }
}

/// Where the root file system comes from. It is mounted in the container's own mount namespace, so it goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rootfs {
    /// `lower[0]` is the topmost layer, as overlayfs orders them. All are absolute host paths.
    Overlay { lower: Vec<String>, upper: String, work: String },
    /// A prepared folder (`berth-oci` bundles).
    Folder { path: String },
}

/// One mount, in order. Destinations are absolute inside the container and resolved with RESOLVE_IN_ROOT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub source: MountSource,
    pub destination: String,
    /// `MOUNT_ATTR_*` bits to set (read-only, nosuid, nodev, noexec, …); of the whole tree when `recursive_attr`.
    pub attr_set: u64,
    pub attr_clear: u64,
    pub recursive_attr: bool,
    /// `MS_PRIVATE`, `MS_SLAVE` or `MS_SHARED`, with `MS_REC` where asked for; 0 leaves it private.
    pub propagation: u64,
    /// Shows the files of a bound path or an image with these ids (an id-mapped mount).
    pub idmap: Option<IdRange>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A new file system: type and its options as fsconfig takes them (`("size", "65536k")`, `("ro", "")`).
    Filesystem { kind: String, options: Vec<(String, String)> },
    /// A host path, resolved in the host's mount namespace before the root is entered.
    Bind { path: String, recursive: bool },
    /// The cgroup file systems below `destination` as the host has them (v1: one folder a hierarchy), seen through the
    /// container's cgroup namespace. Each is (folder name, fs type, fsconfig options); a single entry with an empty name is v2.
    Cgroup { hierarchies: Vec<Hierarchy>, links: Vec<(String, String)> },
    /// An image's files, read-only: its layers, topmost first, as absolute host paths, and the path inside that is shown
    /// (empty for all of it), which is resolved inside the image.
    Image { layers: Vec<String>, sub_path: String },
}

/// A cgroup file system: its folder's name, its type and its options.
pub type Hierarchy = (String, String, Vec<(String, String)>);

/// A device node made with mknod, or bound from the host where mknod is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Absolute path inside the container.
    pub path: String,
    pub kind: DeviceKind,
    pub major: u32,
    pub minor: u32,
    /// Permission bits, without the type.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    Character,
    Block,
}

/// Capability sets as bit masks (bit n is capability n).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// `RLIMIT_*`.
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// A process: a container's first one, or an exec'd one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Process {
    pub args: Vec<String>,
    /// `NAME=value`. Used for PATH look-up of `args[0]` too.
    pub env: Vec<String>,
    /// Absolute; created with mode 0755 when it is missing (first process only).
    pub cwd: String,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub umask: Option<u32>,
    pub capabilities: Capabilities,
    pub no_new_privileges: bool,
    /// Compiled BPF, eight bytes a `sock_filter`; empty for none.
    pub seccomp: Vec<u8>,
    pub rlimits: Vec<Rlimit>,
    /// Wanted; clamped and noted when the kernel refuses to lower it.
    pub oom_score_adj: Option<i32>,
    pub terminal: bool,
    /// The AppArmor profile to execute the program under; empty for none.
    pub apparmor: String,
}

/// Everything about a container's creation that the executor needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    pub namespaces: NewNamespaces,
    /// Where `namespaces.pid` is not set.
    pub pid_from: PidFrom,
    /// The ids of the pod's user namespace, which the container is in; `None` leaves it in the shim's, which is the
    /// node's. Numbers of users and groups in the process are those inside, owners of device nodes those outside.
    pub user: Option<IdRange>,
    /// Set only when a UTS namespace is new.
    pub hostname: Option<String>,
    pub rootfs: Rootfs,
    pub readonly_rootfs: bool,
    /// `MS_SLAVE | MS_REC` unless a mount asks for sharing with the host.
    pub root_propagation: u64,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    /// (link path, target), e.g. ("/dev/fd", "/proc/self/fd").
    pub links: Vec<(String, String)>,
    /// Namespaced sysctls, (`net.ipv4.ip_forward`, value), written into a checked procfs.
    pub sysctls: Vec<(String, String)>,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub process: Process,
    /// Where the shim writes the CRI log: an absolute host path. Empty discards the output.
    pub log_path: String,
    pub stdin: Stdin,
    /// Who makes it a container instead of the executor, which only mounts the root file system at `rootfs` in the
    /// delegate's folder then, in a mount namespace of this one start. `namespaces` has nothing but `mount` then.
    pub delegate: Option<Delegate>,
}

/// Another OCI runtime, run as a program.
///
/// Its commands leave a process behind, whose number they write to a file, and which goes on as the plan's process. The
/// cgroups are the program's business, so a request with a delegate comes without descriptors of any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegate {
    /// The bundle: an absolute host path, and the commands' working folder.
    pub folder: String,
    /// Each a program with its arguments. The first one gets the process's standard streams and makes the process; others
    /// follow once its number is known, without streams.
    pub commands: Vec<Vec<String>>,
    /// Where the first command writes the number, in the folder.
    pub pid_file: String,
    /// Where the first command sends the terminal's master, in the folder; empty for no terminal.
    pub console: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stdin {
    /// `/dev/null`.
    #[default]
    None,
    /// Held open for attach.
    Open,
    /// Closed after the first attached client ends.
    Once,
}

/// An exec'd process: it joins all namespaces of the container's first process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    pub id: String,
    pub container: String,
    /// The container's other runtime: its command joins the container, and what follows here is not looked at.
    pub delegate: Option<Delegate>,
    /// As the container's.
    pub user: Option<IdRange>,
    pub process: Process,
}

/// What a shim reads of a [`Container`] before it forks: the rest, secrets among it, is read by the child alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerHead {
    pub id: String,
    pub namespaces: NewNamespaces,
    pub pid_from: PidFrom,
    pub user: Option<IdRange>,
    pub log_path: String,
    pub stdin: Stdin,
    pub terminal: bool,
}

/// What a shim reads of an [`Exec`] before it forks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecHead {
    pub id: String,
    pub container: String,
    pub delegate: Option<Delegate>,
    pub terminal: bool,
}
