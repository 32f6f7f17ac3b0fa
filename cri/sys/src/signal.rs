//! Signals: blocked and read from a descriptor, sent to processes that the caller has not reaped.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd as Inner};

pub use libc::{SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGQUIT, SIGSTOP, SIGTERM, SIGUSR1, SIGUSR2};

/// The largest signal number on the architectures that we run on.
const LAST: i32 = 64;

/// Whether `signal` is a signal's number (real-time ones too), or 0.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] when it is not.
pub fn check(signal: i32) -> io::Result<()> {
    if (0..=LAST).contains(&signal) {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{signal} is no signal")))
    }
}

/// kill(2) on a child that the caller has not reaped, whose number therefore still is its own. Prefer
/// [`crate::pidfd::PidFd`] for all others. A process that has ended is no error.
///
/// # Errors
/// What the kernel answers; [`io::ErrorKind::InvalidInput`] for process numbers that mean groups.
pub fn send(pid: i32, signal: i32) -> io::Result<()> {
    check(signal)?;
    if pid <= 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{pid} is no process")));
    }
    // SAFETY: kill(2) takes two integers and touches no memory of ours.
    let answer = unsafe { libc::kill(pid, signal) };
    match crate::outcome(answer.into()) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other.map(drop),
    }
}

/// Signals that are blocked for this thread, and those it makes, and read from a descriptor instead (signalfd(2)).
#[derive(Debug)]
pub struct SignalFd {
    inner: Inner,
}

impl SignalFd {
    /// Blocks `signals` for the calling thread and opens the descriptor, which does not block. Call it before other
    /// threads are made, so that they inherit the mask.
    ///
    /// # Errors
    /// What the kernel answers; [`io::ErrorKind::InvalidInput`] for what is no signal.
    pub fn block(signals: &[i32]) -> io::Result<Self> {
        let mut set = SigSet::empty();
        for &signal in signals {
            set.add(Signal::try_from(signal)?);
        }
        set.thread_block()?;
        Ok(Self { inner: Inner::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)? })
    }

    /// The next signal that has arrived, if any. Equal signals may have been merged.
    ///
    /// # Errors
    /// What read(2) answers.
    pub fn next(&self) -> io::Result<Option<i32>> {
        Ok(self.inner.read_signal()?.and_then(|info| i32::try_from(info.ssi_signo).ok()))
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

/// Gives every signal its default disposition and unblocks all: what a program expects at its start. Ignored signals
/// (Rust ignores SIGPIPE) and the mask would otherwise pass through execve(2).
pub fn reset_all() {
    for signal in 1..=LAST {
        // SAFETY: a zeroed sigaction is a valid value: SIG_DFL, empty mask, no flags.
        let default: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: `default` lives through the call, and SIG_DFL installs no code of ours. The C library refuses its own
        // and unchangeable signals with EINVAL, which changes nothing.
        unsafe { libc::sigaction(signal, &raw const default, ptr::null_mut()) };
    }
    let _ = nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Ignores a signal in this process and, unless [`reset_all`] is called, in what it executes.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] when it is no signal or can't be ignored.
pub fn ignore(signal: i32) -> io::Result<()> {
    check(signal)?;
    // SAFETY: SIG_IGN installs no code of ours.
    let old = unsafe { libc::signal(signal, libc::SIG_IGN) };
    if old == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}
