//! Namespaces (namespaces(7)): entering them, leaving them behind, and what is set inside.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::pidfd::PidFd;

/// A set of namespaces, as `CLONE_NEW*` bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Namespaces(libc::c_int);

impl Namespaces {
    pub const NONE: Self = Self(0);
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS);
    pub const PID: Self = Self(libc::CLONE_NEWPID);
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP);
    pub const IPC: Self = Self(libc::CLONE_NEWIPC);
    pub const UTS: Self = Self(libc::CLONE_NEWUTS);
    pub const NET: Self = Self(libc::CLONE_NEWNET);
    pub const USER: Self = Self(libc::CLONE_NEWUSER);
    /// Linux 5.6. [`unshare`] makes it for the next children; [`enter`] is for the caller, too.
    pub const TIME: Self = Self(libc::CLONE_NEWTIME);

    /// Both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Both sets where `condition` holds, else this one.
    #[must_use]
    pub const fn and_if(self, condition: bool, other: Self) -> Self {
        if condition { self.and(other) } else { self }
    }

    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    pub(crate) const fn bits(self) -> libc::c_int {
        self.0
    }
}

/// Moves the calling thread into new namespaces (unshare(2)); with [`Namespaces::PID`] its next children. New user
/// namespaces, and mount namespaces of processes with several threads sharing them, are refused by the kernel or moved
/// for this thread alone: call it from a thread that ends, or a single-threaded process.
///
/// # Errors
/// What unshare(2) answers.
pub fn unshare(namespaces: Namespaces) -> io::Result<()> {
    // SAFETY: unshare(2) takes an integer. Only CLONE_NEW* bits are passed (see `Namespaces`), never CLONE_FILES, so the
    // descriptor table stays shared with other threads as they expect.
    let answer = unsafe { libc::unshare(namespaces.bits()) };
    crate::outcome(answer.into()).map(drop)
}

/// Moves the calling thread into the namespace that `fd` stands for (setns(2)), which must be one of `kind`.
///
/// # Errors
/// What setns(2) answers; `EINVAL` when it is of another kind.
pub fn enter(fd: BorrowedFd<'_>, kind: Namespaces) -> io::Result<()> {
    // SAFETY: setns(2) takes integers; the descriptor is borrowed for the call.
    let answer = unsafe { libc::setns(fd.as_raw_fd(), kind.bits()) };
    crate::outcome(answer.into()).map(drop)
}

/// Moves the calling thread into the given namespaces of a process (setns(2) on a pidfd, Linux 5.8): all of them or none.
/// With [`Namespaces::PID`] its next children.
///
/// # Errors
/// What setns(2) answers; `ESRCH` when the process has ended.
pub fn enter_of(process: &PidFd, namespaces: Namespaces) -> io::Result<()> {
    enter(process.as_fd(), namespaces)
}

/// Sets the clocks of the time namespace that the caller's next children will be in, before any is
/// (time_namespaces(7)): lines of `CLOCK SECONDS NANOSECONDS`.
///
/// # Errors
/// What the kernel answers: `EACCES` when a process is in it already, `ERANGE` for a clock before 0.
pub fn set_time_offsets(lines: &str) -> io::Result<()> {
    std::fs::write("/proc/self/timens_offsets", lines)
}

/// Sets the NIS domain name of the UTS namespace.
///
/// # Errors
/// What setdomainname(2) answers; `EINVAL` beyond 64 bytes.
pub fn set_domainname(name: &str) -> io::Result<()> {
    Ok(rustix::system::setdomainname(name.as_bytes())?)
}

/// Sets the host name of the UTS namespace.
///
/// # Errors
/// What sethostname(2) answers; `EINVAL` beyond 64 bytes.
pub fn set_hostname(name: &str) -> io::Result<()> {
    Ok(rustix::system::sethostname(name.as_bytes())?)
}
