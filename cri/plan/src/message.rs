//! Messages between the runtime and a shim: one packet each on a SOCK_SEQPACKET socket, descriptors beside it.
//!
//! The runtime connects to `SANDBOX_DIR/shim.sock` and sends requests, each with a number of its choosing; the shim
//! answers each with a reply of that number and sends events (number 0) to every client that is connected.

use crate::container::IdRange;

/// A packet to the shim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToShim {
    /// From 1 up, of the client's choosing.
    pub number: u64,
    pub request: Request,
}

/// A packet from the shim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromShim {
    Reply { number: u64, reply: Reply },
    Event { event: Event },
}

/// Runtime to shim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// First message on a connection. The reply says what the shim holds, so that a restarted runtime adopts it.
    Hello { protocol: u16 },
    /// Once per sandbox, before any container. One descriptor where `join_network`: the network namespace, which the
    /// shim enters for good. It makes new IPC and UTS namespaces where asked, and sets hostname and sysctls there.
    ///
    /// With `user`, it makes a user namespace of these ids first and the other namespaces inside it, the network's
    /// (`new_network`) among them; the shim itself stays in the node's. With `shared_pid`, it keeps a process 1 for a PID
    /// namespace of the pod, whose number is written to `SANDBOX_DIR/init.pid`.
    Sandbox {
        join_network: bool,
        new_network: bool,
        new_ipc: bool,
        new_uts: bool,
        shared_pid: bool,
        user: Option<IdRange>,
        hostname: String,
        sysctls: Vec<(String, String)>,
    },
    /// Descriptors: the plan ([`crate::container::Container`], a sealed memfd), then `cgroup_tasks` descriptors of
    /// `tasks` files opened for writing (v1 and hybrid), then one cgroup v2 folder where `cgroup_v2`.
    Start { container: String, cgroup_tasks: u8, cgroup_v2: bool },
    /// Descriptors: the plan ([`crate::container::Exec`], a sealed memfd), then stdin (read end), stdout and stderr
    /// (write ends), then the same cgroup descriptors as in [`Request::Start`]. With a terminal there are no streams: the
    /// reply carries the terminal's master, which the shim does not keep, so that closing it hangs up.
    Exec { exec: String, cgroup_tasks: u8, cgroup_v2: bool },
    /// To the first process of a container, or to all of an exec's session.
    Signal { target: Target, signal: i32 },
    /// The reply comes when the new log file exists.
    ReopenLog { container: String },
    /// Forget an exited container: close what is held for it.
    Forget { container: String },
    /// Leave, if no container runs. The reply is the last thing a shim says.
    Shutdown,
    /// Since protocol 2. Joins a running container's streams. Descriptors: the write ends of two pipes where asked for, of
    /// standard output and standard error, to which all output from now on is copied, and which are closed when the
    /// container has ended and its output was copied. Who does not read is dropped: its pipes are closed early.
    Attach { container: String, stdin: bool, stdout: bool, stderr: bool },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Container(String),
    Exec(String),
}

/// Shim to runtime, with the request's number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Hello {
        protocol: u16,
        pid: i32,
        sandbox_ready: bool,
        containers: Vec<Held>,
        execs: Vec<String>,
    },
    Done,
    /// The process runs the user's program (its `execve` succeeded).
    Started {
        pid: i32,
        started_at: i64,
    },
    Failed(Failure),
    /// One descriptor at most. A terminal's master where the container has one, for input and sizes; else the write end of
    /// standard input, where that was asked for and is open. With [`crate::container::Stdin::Once`] it is the only write
    /// end, which the first client gets: the container's input ends when that client closes it.
    Attached {
        terminal: bool,
        stdin: bool,
    },
}

/// Why a request failed: where, the kernel's word and ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub stage: Stage,
    /// 0 when it was not a system call.
    pub errno: i32,
    /// Names the path or object.
    pub message: String,
}

/// The step that failed; each maps to one CRI message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Protocol,
    UnknownTarget,
    AlreadyExists,
    Cgroup,
    Namespace,
    Rootfs,
    Mount,
    Device,
    Sysctl,
    Paths,
    Log,
    Rlimit,
    User,
    Capabilities,
    Seccomp,
    Cwd,
    /// `args[0]` was not found or could not be executed.
    Execve,
    Fork,
    /// Another OCI runtime, which has its own words for why.
    Delegate,
}

/// Unasked, number 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The exit record is on disk already (`SANDBOX_DIR/exits/CONTAINER`, a [`Exit`] frame).
    ContainerExited {
        container: String,
        exit: Exit,
    },
    ExecExited {
        exec: String,
        exit: Exit,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    pub pid: i32,
    /// As a shell shows it: 0-255, 128+n for a signal.
    pub code: i32,
    /// The signal that ended it, or 0.
    pub signal: i32,
    /// Nanoseconds since the epoch.
    pub started_at: i64,
    pub finished_at: i64,
}

/// A container that the shim knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    Running { container: String, pid: i32, started_at: i64 },
    Exited { container: String, exit: Exit },
}
