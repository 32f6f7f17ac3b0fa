//! A child of a single-threaded process: clone3(2), Linux 5.3 (`CLONE_INTO_CGROUP`: 5.7).
//!
//! A fork copies one thread only; locks that others held stay locked in the child for ever. So every function here
//! refuses a process with several threads, and the child of a single-threaded one may do whatever its parent may.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::namespace::Namespaces;
use crate::pidfd::PidFd;

/// libc's constant has too narrow a type for its bit.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What a child gets at its birth.
#[derive(Debug, Default)]
pub struct Birth<'a> {
    /// New namespaces. Not [`Namespaces::CGROUP`]: it would be rooted at the parent's cgroup, so unshare it afterwards.
    pub namespaces: Namespaces,
    /// A cgroup v2 folder that the child is born into.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Standard input, output and error.
    pub stdio: Option<[BorrowedFd<'a>; 3]>,
    /// What else the child gets, in this order; everything from 3 up that is not named here is closed.
    pub descriptors: &'a [BorrowedFd<'a>],
}

/// A child that its parent has not reaped.
#[derive(Debug)]
pub struct Child {
    pub pid: i32,
    pub pidfd: PidFd,
}

/// The status of a child whose body panicked.
pub const PANICKED: i32 = 101;

/// Forks a child that runs `body` with the descriptors named in `birth` (as its own copies, close-on-exec) and then exits
/// with what it returns. It has all signals at their defaults and unblocked. `body` is no closure so that it can't carry
/// descriptors that are closed in the child.
///
/// # Errors
/// What clone3(2) answers; [`io::ErrorKind::Unsupported`] when the process has several threads.
pub fn spawn(birth: &Birth<'_>, body: fn(Vec<OwnedFd>) -> i32) -> io::Result<Child> {
    spawn_with(birth, &body, |body, descriptors| body(descriptors))
}

/// As [`spawn`], and the child sees `context` in its copy of the memory. A descriptor in it would be closed there: hand
/// it over in [`Birth::descriptors`].
///
/// # Errors
/// As [`spawn`].
pub fn spawn_with<T: ?Sized>(birth: &Birth<'_>, context: &T, body: fn(&T, Vec<OwnedFd>) -> i32) -> io::Result<Child> {
    let mut pidfd: libc::c_int = -1;
    let flags =
        libc::CLONE_PIDFD as u64 | u64::try_from(birth.namespaces.bits()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let pid = clone3(flags, birth.cgroup, &mut pidfd)?;
    if pid == 0 {
        run_child(birth, context, body);
    }
    // SAFETY: the kernel has stored a new descriptor in `pidfd` (CLONE_PIDFD), which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid: i32::try_from(pid).unwrap_or(i32::MAX), pidfd: PidFd::from_fd(pidfd) })
}

/// Forks: 0 in the child. `pidfd` is set where the flags have `CLONE_PIDFD`.
fn clone3(mut flags: u64, into: Option<BorrowedFd<'_>>, pidfd: &mut libc::c_int) -> io::Result<i64> {
    require_single_thread()?;
    let mut cgroup = 0;
    if let Some(folder) = into {
        flags |= CLONE_INTO_CGROUP;
        cgroup = u64::try_from(folder.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    }
    let arguments = libc::clone_args {
        flags,
        pidfd: (&raw mut *pidfd).expose_provenance() as u64,
        child_tid: 0,
        parent_tid: 0,
        // A sibling has the caller's own signal.
        exit_signal: if flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 },
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup,
    };
    // SAFETY: without CLONE_VM the child runs on a copy of this address space, as after fork(2); the process has one
    // thread (checked above), so no lock is held by a thread that is missing in the copy. `arguments` and `pidfd` live
    // through the call.
    let answer = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    crate::outcome(answer)
}

/// Forks, and lets the parent wait for the child's word: only the child returns, and says that it is ready with
/// [`Ready::tell`]; the parent leaves with status 0 then, and with 1 when
/// the child ends or drops [`Ready`] without a word. The child is born into the cgroup v2 folder `cgroup`, where there is
/// one.
///
/// # Errors
/// What clone3(2) answers; [`io::ErrorKind::Unsupported`] when the process has several threads.
pub fn into_background(cgroup: Option<BorrowedFd<'_>>) -> io::Result<Ready> {
    let (reader, writer) = crate::fd::pipe()?;
    if clone3(0, cgroup, &mut -1)? == 0 {
        return Ok(Ready { pipe: writer });
    }
    drop(writer);
    let mut text = Vec::new();
    let read = io::Read::read_to_end(&mut std::fs::File::from(reader), &mut text);
    let ready = read.is_ok() && text == READY;
    exit(i32::from(!ready))
}

/// Which of the two the caller is after [`sibling`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The old process, with the new one's number in its own PID namespace.
    Old(i32),
    New,
}

/// Forks the caller into new namespaces (not [`Namespaces::CGROUP`]) with all that it holds, as one more child of the
/// caller's parent (`CLONE_PARENT`): who has no rights outside of the user namespace that he has just entered makes the
/// namespaces that belong to it so, and goes on in them. The parent hears of the new one only from the old one.
///
/// # Errors
/// What clone3(2) answers; [`io::ErrorKind::Unsupported`] when the process has several threads.
pub fn sibling(namespaces: Namespaces) -> io::Result<Side> {
    let flags =
        libc::CLONE_PARENT as u64 | u64::try_from(namespaces.bits()).map_err(|_| io::ErrorKind::InvalidInput)?;
    match clone3(flags, None, &mut -1)? {
        0 => Ok(Side::New),
        pid => Ok(Side::Old(i32::try_from(pid).unwrap_or(i32::MAX))),
    }
}

const READY: &[u8] = b"ready";

/// The child's word to the parent that waits in [`into_background`].
#[derive(Debug)]
pub struct Ready {
    pipe: OwnedFd,
}

impl Ready {
    /// Lets the parent leave with success.
    ///
    /// # Errors
    /// What write(2) answers.
    pub fn tell(self) -> io::Result<()> {
        io::Write::write_all(&mut std::fs::File::from(self.pipe), READY)
    }
}

/// Refuses a process with several threads. The kernel counts them: `/proc/self/task` has 2 links and one more a thread.
pub(crate) fn require_single_thread() -> io::Result<()> {
    let stat = rustix::fs::stat("/proc/self/task")?;
    if stat.st_nlink == 3 {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::Unsupported, "only a process with one thread can fork"))
}

fn exit(status: i32) -> ! {
    // SAFETY: _exit(2) ends the process at once; nothing of Rust's runs any more.
    unsafe { libc::_exit(status) }
}

fn run_child<T: ?Sized>(birth: &Birth<'_>, context: &T, body: fn(&T, Vec<OwnedFd>) -> i32) -> ! {
    // A panic must not unwind into the copy of the parent's stack.
    let status = catch_unwind(AssertUnwindSafe(|| match take_descriptors(birth) {
        Ok(descriptors) => {
            crate::signal::reset_all();
            body(context, descriptors)
        }
        Err(error) => error.raw_os_error().unwrap_or(PANICKED),
    }));
    exit(status.unwrap_or(PANICKED))
}

/// Brings the standard descriptors to 0-2 and the others to 3, 4, …, and closes all above.
fn take_descriptors(birth: &Birth<'_>) -> io::Result<Vec<OwnedFd>> {
    let count = i32::try_from(birth.descriptors.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // Copies above the range that they go to, so that none is overwritten before its turn. They are closed below.
    let mut lifted = Vec::with_capacity(birth.descriptors.len());
    for fd in birth.descriptors {
        lifted.push(rustix::io::fcntl_dupfd_cloexec(fd, 3 + count)?);
    }
    if let Some(stdio) = birth.stdio {
        let mut high = Vec::with_capacity(3);
        for fd in stdio {
            high.push(rustix::io::fcntl_dupfd_cloexec(fd, 3 + count)?);
        }
        for (target, fd) in (0..).zip(&high) {
            duplicate_onto(fd, target, 0)?;
        }
        high.into_iter().for_each(std::mem::forget);
    }
    for (target, fd) in (3..).zip(&lifted) {
        duplicate_onto(fd, target, libc::O_CLOEXEC)?;
    }
    lifted.into_iter().for_each(std::mem::forget);
    crate::fd::close_from(3 + count)?;
    // SAFETY: 3..3+count were just made by dup3 for this child; what the copied address space believed to own there runs
    // no more (the child leaves through _exit, and `body` carries no state).
    Ok((3..3 + count).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect())
}

fn duplicate_onto(fd: &OwnedFd, target: i32, flags: i32) -> io::Result<()> {
    // SAFETY: in the child of a fork nobody else uses `target` any more, see `take_descriptors`.
    let answer = unsafe { libc::dup3(fd.as_raw_fd(), target, flags) };
    crate::outcome(answer.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_several_threads_is_refused() {
        // The test harness runs this on a thread of its own.
        let error = spawn(&Birth::default(), |_| 0).expect_err("several threads");
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    }
}
