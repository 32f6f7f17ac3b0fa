//! Every system call wrapper and owned kernel handle; the only crate with unsafe.
//!
//! What the safe crates (rustix first, nix second) offer is used through them; what they lack is called through libc
//! here, with the man page, the kernel version and the invariant that makes the call sound beside it. Signatures take
//! and give owned or borrowed descriptors only, all of them close-on-exec. Errors are [`std::io::Error`] with the
//! kernel's errno; the caller adds the path or the object.
//!
//! - [`path`]: handles below a root that nothing inside can lead out of
//! - [`mount`]: the mount API by descriptors (fsopen, open_tree, move_mount, mount_setattr), pivot_root
//! - [`fork`]: a child of a single-threaded process, with namespaces, cgroup and descriptors as asked
//! - [`pidfd`], [`namespace`], [`userns`], [`signal`], [`process`]: processes and what they are in
//! - [`caps`], [`credentials`], [`rlimit`], [`seccomp`], [`bpf`]: what a process may do; [`schedule`]: when, and as what
//! - [`allocator`]: limits of the C library's
//! - [`memfd`], [`seqpacket`], [`terminal`], [`event`], [`fd`]: descriptors and waiting

pub mod allocator;
pub mod bpf;
pub mod caps;
pub mod credentials;
pub mod event;
pub mod fd;
pub mod fork;
pub mod memfd;
pub mod mount;
pub mod namespace;
pub mod netns;
pub mod path;
pub mod pidfd;
pub mod process;
pub mod rlimit;
pub mod schedule;
pub mod seccomp;
pub mod seqpacket;
pub mod signal;
pub mod terminal;
pub mod userns;
pub mod wipe;

pub use rustix::fs::{Mode, OFlags};

/// A system call's return value, with errno where it says so.
fn outcome(answer: libc::c_long) -> std::io::Result<libc::c_long> {
    if answer < 0 { Err(std::io::Error::last_os_error()) } else { Ok(answer) }
}
