//! Processes: sessions, reaping, executing programs, and facts about others.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::BorrowedFd;

use rustix::process::WaitOptions;

use crate::pidfd::Ended;

/// Makes the caller the leader of a session and group of its own (setsid(2)).
///
/// # Errors
/// `EPERM` when it leads a group already.
pub fn new_session() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// Makes the caller the parent of its descendants' orphans (`PR_SET_CHILD_SUBREAPER`, Linux 3.4).
///
/// # Errors
/// What prctl(2) answers.
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Reaps any child that has ended: its number and how. `None` when none has.
///
/// # Errors
/// What waitpid(2) answers, except that having no child is `None`.
pub fn reap() -> io::Result<Option<(i32, Ended)>> {
    match rustix::process::wait(WaitOptions::NOHANG) {
        Err(rustix::io::Errno::CHILD) => Ok(None),
        Err(error) => Err(error.into()),
        Ok(None) => Ok(None),
        Ok(Some((pid, status))) => {
            let ended = match status.terminating_signal() {
                Some(signal) => Ended::Signal(signal),
                None => Ended::Code(status.exit_status().unwrap_or(255)),
            };
            Ok(Some((pid.as_raw_nonzero().get(), ended)))
        }
    }
}

/// execve(2). Returns only on failure.
pub fn execute(path: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    match nix::unistd::execve(path, arguments, environment) {
        Err(error) => error.into(),
        Ok(never) => match never {},
    }
}

/// execve(2) of the program that a handle stands for (execveat(2) with `AT_EMPTY_PATH`). Returns only on failure.
pub fn execute_handle(program: BorrowedFd<'_>, arguments: &[CString], environment: &[CString]) -> io::Error {
    let flags = nix::fcntl::AtFlags::AT_EMPTY_PATH;
    match nix::unistd::execveat(program, c"", arguments, environment, flags) {
        Err(error) => error.into(),
        Ok(never) => match never {},
    }
}

/// The name of the calling thread as others see it in `/proc/PID/comm`; 15 bytes count.
///
/// # Errors
/// What prctl(2) answers.
pub fn set_name(name: &CStr) -> io::Result<()> {
    Ok(rustix::thread::set_name(name)?)
}

/// The caller's effective user.
pub fn effective_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether the current (effective) user may execute a file: faccessat2(2) with `AT_EACCESS`, Linux 5.8.
///
/// # Errors
/// What the kernel answers: `EACCES` when not.
pub fn check_executable(path: impl AsRef<std::path::Path>) -> io::Result<()> {
    let (access, flags) = (rustix::fs::Access::EXEC_OK, rustix::fs::AtFlags::EACCESS);
    Ok(rustix::fs::accessat(rustix::fs::CWD, path.as_ref(), access, flags)?)
}

/// Changes the working directory to a handle's folder (fchdir(2)).
///
/// # Errors
/// What the kernel answers.
pub fn change_folder(folder: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::process::fchdir(folder)?)
}

/// Whether the working directory lies below the root directory: getcwd(2) says `(unreachable)` or fails where not.
///
/// # Errors
/// What getcwd(2) answers.
pub fn is_inside_root() -> io::Result<bool> {
    Ok(rustix::process::getcwd(Vec::new())?.as_bytes().starts_with(b"/"))
}

/// Whether the running kernel is `major.minor` or newer, by its own word (uname(2)).
pub fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

/// Nanoseconds since the epoch.
pub fn now() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}

/// Milliseconds of a clock that only goes forward.
pub fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}
