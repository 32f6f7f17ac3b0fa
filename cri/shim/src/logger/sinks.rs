//! Where a container's output is copied to besides its log: the pipes of attached clients.
//!
//! A pipe is a queue that the kernel bounds. A client that leaves its pipe full makes the container wait a little, so that
//! nobody who only was not scheduled in time loses output, and is dropped then.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use berth_sys::event::{self, Epoll};
use berth_sys::{fd, process};

use super::orders::Streams;

/// More pipes than the clients of one container have; further ones are refused.
const MAX: usize = 128;
/// How long a client may have its container wait without ever catching up, in milliseconds.
const PATIENCE: u64 = 250;
/// What marks the keys of pipes among those of streams.
const MARK: u64 = 1 << 63;
/// EUSERS, "too many users".
const EUSERS: i32 = 87;

#[derive(Debug)]
struct Sink {
    key: u64,
    pipe: OwnedFd,
    stream: usize,
    /// For how long it was waited for since it last was quick enough.
    waited: u64,
}

/// The pipes that are joined to one container.
#[derive(Debug, Default)]
pub(super) struct Sinks {
    all: Vec<Sink>,
}

impl Sinks {
    /// Joins a client's pipes, in the order of their streams; `next` gives them keys.
    pub(super) fn join(
        &mut self,
        epoll: &Epoll,
        next: &mut u32,
        streams: Streams,
        pipes: Vec<OwnedFd>,
    ) -> io::Result<()> {
        let wanted: Vec<usize> = (0..2).filter(|stream| streams >> stream & 1 == 1).collect();
        if wanted.len() != pipes.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if self.all.len() + pipes.len() > MAX {
            return Err(io::Error::from_raw_os_error(EUSERS));
        }
        let kept = self.all.len();
        for (stream, pipe) in wanted.into_iter().zip(pipes) {
            *next = next.wrapping_add(1);
            let sink = Sink { key: MARK | u64::from(*next), pipe, stream, waited: 0 };
            let joined = fd::set_nonblocking(sink.pipe.as_fd(), true).and_then(|()| epoll.add(&sink.pipe, sink.key));
            if let Err(error) = joined {
                self.part(epoll, |_, at| at >= kept);
                return Err(error);
            }
            self.all.push(sink);
        }
        Ok(())
    }

    /// Copies output to those who joined its stream.
    pub(super) fn write(&mut self, epoll: &Epoll, stream: usize, output: &[u8]) {
        let mut lost = Vec::new();
        for sink in self.all.iter_mut().filter(|sink| sink.stream == stream) {
            if !sink.write(output) {
                lost.push(sink.key);
            }
        }
        if !lost.is_empty() {
            self.part(epoll, |sink, _| lost.contains(&sink.key));
        }
    }

    /// An event of a pipe: its reader is gone, for nothing else is waited for.
    pub(super) fn hung_up(&mut self, epoll: &Epoll, key: u64) {
        self.part(epoll, |sink, _| sink.key == key);
    }

    /// The end of all: what was copied can still be read.
    pub(super) fn close(&mut self, epoll: &Epoll) {
        self.part(epoll, |_, _| true);
        // Nobody attached, no memory.
        self.all = Vec::new();
    }

    pub(super) fn end(&mut self, epoll: &Epoll, stream: usize) {
        self.part(epoll, |sink, _| sink.stream == stream);
    }

    fn part(&mut self, epoll: &Epoll, which: impl Fn(&Sink, usize) -> bool) {
        let mut at = 0;
        self.all.retain(|sink| {
            let parts = which(sink, at);
            at += 1;
            if parts {
                let _ = epoll.remove(&sink.pipe);
            }
            !parts
        });
    }
}

/// Whether a key is that of a pipe.
pub(super) fn is_key(key: u64) -> bool {
    key & MARK != 0
}

impl Sink {
    /// Whether the client took it all.
    fn write(&mut self, mut output: &[u8]) -> bool {
        let mut quick = true;
        while !output.is_empty() {
            match fd::write(self.pipe.as_fd(), output) {
                Ok(length) => output = &output[length..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.waited < PATIENCE => {
                    quick = false;
                    let begin = process::monotonic();
                    let rest = i32::try_from(PATIENCE - self.waited).unwrap_or(0);
                    let _ = event::wait_writable(self.pipe.as_fd(), rest);
                    // Counted as one at least, so that this ends whatever the clock says.
                    self.waited += process::monotonic().saturating_sub(begin).max(1);
                }
                Err(_) => return false,
            }
        }
        if quick {
            self.waited = 0;
        }
        true
    }
}
