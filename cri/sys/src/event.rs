//! Waiting for descriptors: epoll(7), and poll(2) for small programs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, epoll};
use rustix::io::Errno;

/// An epoll instance whose members are known by a number of the caller's choosing; all are watched for reading (and, as
/// epoll always does, for their end), and level-triggered unless [`Epoll::watch_changes`] says otherwise.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
}

/// How many events one [`Epoll::wait`] gives at most.
const BATCH: usize = 16;

impl Epoll {
    /// # Errors
    /// What epoll_create1(2) answers.
    pub fn new() -> io::Result<Self> {
        Ok(Self { fd: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    /// Watches `fd`, known as `key`.
    ///
    /// # Errors
    /// What epoll_ctl(2) answers.
    pub fn add(&self, fd: impl AsFd, key: u64) -> io::Result<()> {
        Ok(epoll::add(&self.fd, fd, epoll::EventData::new_u64(key), epoll::EventFlags::IN)?)
    }

    /// Tells of a watched `fd` only when something about it changes from now on (`on`), or whenever it is ready. What it
    /// is at the moment counts as a change.
    ///
    /// # Errors
    /// What epoll_ctl(2) answers.
    pub fn watch_changes(&self, fd: impl AsFd, key: u64, on: bool) -> io::Result<()> {
        let edges = if on { epoll::EventFlags::ET } else { epoll::EventFlags::empty() };
        Ok(epoll::modify(&self.fd, fd, epoll::EventData::new_u64(key), epoll::EventFlags::IN | edges)?)
    }

    /// Watches `fd` no longer. Call it before closing a descriptor that has duplicates elsewhere: epoll would go on.
    ///
    /// # Errors
    /// What epoll_ctl(2) answers.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.fd, fd)?)
    }

    /// Waits up to `milliseconds` (-1: without limit) and puts the keys of what is ready into `ready`.
    ///
    /// # Errors
    /// What epoll_wait(2) answers; a signal is no error.
    pub fn wait(&self, ready: &mut Vec<u64>, milliseconds: i32) -> io::Result<()> {
        ready.clear();
        let mut events =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; BATCH];
        let count = match epoll::wait(&self.fd, &mut events, timeout(milliseconds).as_ref()) {
            Err(Errno::INTR) => 0,
            other => other?,
        };
        ready.extend(events.iter().take(count).map(|event| event.data.u64()));
        Ok(())
    }
}

/// Waits until one of `fds` is readable or at its end, for up to `milliseconds` (-1: without limit); which are.
///
/// # Errors
/// What poll(2) answers.
pub fn wait_readable(fds: &[BorrowedFd<'_>], milliseconds: i32) -> io::Result<Vec<bool>> {
    wait(fds, PollFlags::IN, milliseconds)
}

/// Waits until `fd` takes bytes, or never will again, for up to `milliseconds` (-1: without limit); whether it does.
///
/// # Errors
/// What poll(2) answers.
pub fn wait_writable(fd: BorrowedFd<'_>, milliseconds: i32) -> io::Result<bool> {
    Ok(wait(&[fd], PollFlags::OUT, milliseconds)?.contains(&true))
}

fn wait(fds: &[BorrowedFd<'_>], what: PollFlags, milliseconds: i32) -> io::Result<Vec<bool>> {
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(fd, what)).collect();
    loop {
        match rustix::event::poll(&mut polled, timeout(milliseconds).as_ref()) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect()),
        }
    }
}

fn timeout(milliseconds: i32) -> Option<Timespec> {
    let milliseconds = i64::from(milliseconds);
    (milliseconds >= 0).then(|| Timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 })
}
