//! Descriptors: pipes, duplicates, the standard ones, and closing what is not wanted.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// A pipe: read end, write end; both close-on-exec.
///
/// # Errors
/// What pipe2(2) answers.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// How many bytes a pipe holds until its writer waits (fcntl(2), `F_SETPIPE_SZ`), rounded up by the kernel.
///
/// # Errors
/// `EPERM` beyond `/proc/sys/fs/pipe-max-size` without CAP_SYS_RESOURCE.
pub fn set_pipe_size(pipe: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    Ok(rustix::pipe::fcntl_setpipe_size(pipe, bytes).map(drop)?)
}

/// Makes reads and writes answer `WouldBlock` instead of waiting, or wait again. It holds for every duplicate.
///
/// # Errors
/// What fcntl(2) answers.
pub fn set_nonblocking(fd: BorrowedFd<'_>, nonblocking: bool) -> io::Result<()> {
    let mut flags = rustix::fs::fcntl_getfl(fd)?;
    flags.set(OFlags::NONBLOCK, nonblocking);
    Ok(rustix::fs::fcntl_setfl(fd, flags)?)
}

/// Opens a path of the caller's own, close-on-exec.
///
/// # Errors
/// What open(2) answers.
pub fn open(path: impl AsRef<std::path::Path>, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path.as_ref(), flags | OFlags::CLOEXEC, mode)?)
}

/// Another descriptor of the same thing (`F_DUPFD_CLOEXEC`).
///
/// # Errors
/// What fcntl(2) answers.
pub fn duplicate(fd: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

/// One read(2), repeated when a signal interrupts it. 0 is the end.
///
/// # Errors
/// What read(2) answers.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::io::read(fd, &mut *buffer) {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// One write(2), repeated when a signal interrupts it.
///
/// # Errors
/// What write(2) answers.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match rustix::io::write(fd, bytes) {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Makes `fd` the process's standard input (0), output (1) or error (2).
///
/// # Errors
/// What dup2(2) answers.
pub fn set_standard(fds: [BorrowedFd<'_>; 3]) -> io::Result<()> {
    // Duplicates above 2 first: a source may itself be one of the three.
    let lifted = fds.map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 3));
    let [input, output, error] = lifted;
    rustix::stdio::dup2_stdin(input?)?;
    rustix::stdio::dup2_stdout(output?)?;
    Ok(rustix::stdio::dup2_stderr(error?)?)
}

/// Closes every descriptor from 3 up that the process was started with (close_range(2), Linux 5.9). It is for the first
/// line of `main`: nothing in the process may own a descriptor yet.
///
/// # Errors
/// What close_range(2) answers, and [`io::ErrorKind::Unsupported`] when the process has several threads.
pub fn close_inherited() -> io::Result<()> {
    crate::fork::require_single_thread()?;
    close_from(3)
}

/// Marks every descriptor from 3 up close-on-exec (Linux 5.11): the last line before execve(2).
///
/// # Errors
/// What close_range(2) answers.
pub fn cloexec_all() -> io::Result<()> {
    // SAFETY: marking close-on-exec changes nothing for who owns a descriptor; close_range(2) touches no memory of ours.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    crate::outcome(answer).map(drop)
}

/// Has the first `count` descriptors from 3 up survive execve(2).
///
/// # Errors
/// What fcntl(2) answers: `EBADF` where one of them is not open.
pub fn keep_first(count: u32) -> io::Result<()> {
    for number in (3..).take(usize::try_from(count).map_err(|_| io::ErrorKind::InvalidInput)?) {
        // SAFETY: changing a descriptor's flag changes nothing for who owns it, and one that is not open is refused.
        let answer = unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
        crate::outcome(answer.into())?;
    }
    Ok(())
}

/// Copies of the first `count` descriptors from 3 up, as a program was started with them: for the first lines of `main`.
///
/// # Errors
/// What fcntl(2) answers: `EBADF` where one of them is not open.
pub fn inherited(count: u32) -> io::Result<Vec<OwnedFd>> {
    let numbers = (3..).take(usize::try_from(count).map_err(|_| io::ErrorKind::InvalidInput)?);
    let copy = |number| {
        // SAFETY: fcntl(2) takes integers, and refuses a descriptor that is not open.
        let answer = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
        let copy = crate::outcome(answer.into())?;
        let copy = i32::try_from(copy).map_err(|_| io::ErrorKind::InvalidData)?;
        // SAFETY: the call has just made the descriptor, and nobody else has it.
        Ok(unsafe { OwnedFd::from_raw_fd(copy) })
    };
    numbers.map(copy).collect()
}

/// Closes every descriptor from `first` up. The caller vouches that nobody uses one of them again.
pub(crate) fn close_from(first: i32) -> io::Result<()> {
    let first = libc::c_uint::try_from(first).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: close_range(2) touches no memory; both callers run where no owner of such a descriptor runs any more
    // (the first line of main; a child that got copies of all it may use below `first`).
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
    crate::outcome(answer).map(drop)
}

/// Gives the file behind a descriptor to an owner: fchown(2).
///
/// # Errors
/// What the kernel answers.
pub fn give(fd: impl AsFd, uid: u32, gid: u32) -> io::Result<()> {
    Ok(rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(uid)), Some(rustix::fs::Gid::from_raw(gid)))?)
}
