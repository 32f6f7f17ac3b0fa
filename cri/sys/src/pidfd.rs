//! A process by descriptor: never another one that got its number.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};

/// A process. Readable (poll, epoll) once it has ended.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// exit(2), 0 to 255.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
}

impl Ended {
    /// As a shell shows it: 128+n for a signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// The signal, or 0.
    pub fn signal(self) -> i32 {
        match self {
            Self::Code(_) => 0,
            Self::Signal(signal) => signal,
        }
    }
}

impl PidFd {
    /// pidfd_open(2), Linux 5.3. The number must belong to the process meant at this moment: for others' processes
    /// compare [`crate::process`] start times afterwards.
    ///
    /// # Errors
    /// `ESRCH` when there is no such process.
    pub fn open(pid: i32) -> io::Result<Self> {
        let pid = Pid::from_raw(pid).filter(|_| pid > 0).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { fd: rustix::process::pidfd_open(pid, PidfdFlags::empty())? })
    }

    /// Takes a descriptor that the kernel gave as a pidfd (clone3, SCM_PIDFD).
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// pidfd_send_signal(2), Linux 5.1. A process that has ended is no error.
    ///
    /// # Errors
    /// What the kernel answers, and [`io::ErrorKind::InvalidInput`] for what is no signal.
    pub fn send_signal(&self, signal: i32) -> io::Result<()> {
        crate::signal::check(signal)?;
        // SAFETY: pidfd_send_signal(2) with a null siginfo reads no memory; the descriptor is borrowed for the call.
        let answer = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.fd.as_raw_fd(), signal, ptr::null::<libc::siginfo_t>(), 0)
        };
        match crate::outcome(answer) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other.map(drop),
        }
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// As [`PidFd::send_signal`].
    pub fn kill(&self) -> io::Result<()> {
        self.send_signal(libc::SIGKILL)
    }

    /// Waits for a child of the caller and reaps it: waitid(2) with `P_PIDFD`, Linux 5.4.
    ///
    /// # Errors
    /// `ECHILD` when it is not the caller's child.
    pub fn wait(&self) -> io::Result<Ended> {
        loop {
            match rustix::process::waitid(WaitId::PidFd(self.fd.as_fd()), WaitIdOptions::EXITED) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(None) => return Err(io::ErrorKind::InvalidData.into()),
                Ok(Some(status)) => {
                    return Ok(match status.terminating_signal() {
                        Some(signal) => Ended::Signal(signal),
                        None => Ended::Code(status.exit_status().unwrap_or(255)),
                    });
                }
            }
        }
    }

    /// Whether the process, anybody's child, has ended within `milliseconds` (-1 waits without limit).
    ///
    /// # Errors
    /// What poll(2) answers.
    pub fn has_ended(&self, milliseconds: i32) -> io::Result<bool> {
        let timeout = u64::try_from(milliseconds).ok().map(|ms| Timespec {
            tv_sec: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(ms % 1000).unwrap_or(0) * 1_000_000,
        });
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        loop {
            match rustix::event::poll(&mut fds, timeout.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                other => return Ok(other? > 0),
            }
        }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    // Reaped, by its pidfd.
    #[allow(clippy::zombie_processes)]
    fn a_child_is_signalled_and_reaped() {
        let child = Command::new("sleep").arg("60").spawn().expect("sleep");
        let pid = i32::try_from(child.id()).expect("a pid");
        let pidfd = PidFd::open(pid).expect("open");
        assert!(!pidfd.has_ended(0).expect("poll"));
        pidfd.send_signal(libc::SIGTERM).expect("signal");
        assert!(pidfd.has_ended(-1).expect("poll"));
        let ended = pidfd.wait().expect("wait");
        assert_eq!((ended, ended.code()), (Ended::Signal(libc::SIGTERM), 143));
        pidfd.kill().expect("signalling the dead is fine");
    }
}
