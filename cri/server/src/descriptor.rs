//! Pipes and terminals as asynchronous streams.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::watched::watched;

/// What a terminal's master answers once nobody has the terminal open.
const EIO: i32 = 5;

/// A pipe's end or a terminal's master. It is closed when this is dropped; its shutdown does nothing.
#[derive(Debug)]
pub(crate) struct Descriptor {
    inner: AsyncFd<OwnedFd>,
}

impl Descriptor {
    pub(crate) fn reader(fd: OwnedFd) -> io::Result<Self> {
        Self::new(fd, Interest::READABLE)
    }

    pub(crate) fn writer(fd: OwnedFd) -> io::Result<Self> {
        Self::new(fd, Interest::WRITABLE)
    }

    fn new(fd: OwnedFd, interest: Interest) -> io::Result<Self> {
        berth_sys::fd::set_nonblocking(fd.as_fd(), true)?;
        Ok(Self { inner: watched(fd, interest)? })
    }

    /// Reads what is there now, without waiting: `WouldBlock` when nothing is.
    pub(crate) fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        read(self.inner.get_ref(), buffer)
    }
}

fn read(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    match berth_sys::fd::read(fd.as_fd(), buffer) {
        Err(error) if error.raw_os_error() == Some(EIO) => Ok(0),
        other => other,
    }
}

impl AsyncRead for Descriptor {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.inner.poll_read_ready(context))?;
            let room = buffer.initialize_unfilled();
            // An error here only says that it was not ready after all: wait again.
            if let Ok(outcome) = guard.try_io(|fd| read(fd.get_ref(), room)) {
                buffer.advance(outcome?);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Descriptor {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.inner.poll_write_ready(context))?;
            if let Ok(outcome) = guard.try_io(|fd| berth_sys::fd::write(fd.get_ref().as_fd(), bytes)) {
                return Poll::Ready(outcome);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
