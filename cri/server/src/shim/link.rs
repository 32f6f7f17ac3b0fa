//! The connection to a shim: numbered requests out, replies and events in.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use berth_plan::MAX_MESSAGE;
use berth_plan::codec;
use berth_plan::message::{FromShim, Reply, Request, ToShim};
use berth_sys::seqpacket;
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use super::{News, ShimError};
use crate::watched::watched;

#[derive(Debug)]
pub(super) struct Link {
    socket: AsyncFd<OwnedFd>,
    next: AtomicU64,
    /// Who waits for which reply; `None` once nobody will answer any more.
    waiting: Mutex<Option<Waiting>>,
}

type Waiting = HashMap<u64, oneshot::Sender<Result<Answer, ShimError>>>;

/// A reply, with the descriptors that came beside it.
pub(super) type Answer = (Reply, Vec<OwnedFd>);

/// What one reading of the socket brought.
#[derive(Debug)]
enum Heard {
    Message(FromShim, Vec<OwnedFd>),
    /// A packet that is of no use: it lost descriptors for which we had no room, or can't be understood. Which reply it
    /// was, where that much is known.
    Spoilt(Option<u64>),
    /// The end of the connection.
    End,
}

impl Link {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            socket: watched(socket, Interest::READABLE | Interest::WRITABLE)?,
            next: AtomicU64::new(1),
            waiting: Mutex::new(Some(HashMap::new())),
        })
    }

    /// The first request of a connection, before [`Link::read`] reads it.
    pub(super) async fn first(&self, request: Request) -> Result<Reply, ShimError> {
        self.send(&ToShim { number: 0x1_0000, request }, &[]).await?;
        loop {
            match self.receive().await? {
                Heard::Message(FromShim::Reply { reply, .. }, _) => return Ok(reply),
                // The shim sends events to every client. What has ended by now is in its greeting, too.
                Heard::Message(FromShim::Event { .. }, _) => {}
                Heard::Spoilt(_) => return Err(ShimError::Unexpected),
                Heard::End => return Err(ShimError::Broken),
            }
        }
    }

    pub(super) async fn call(&self, request: Request, descriptors: &[BorrowedFd<'_>]) -> Result<Answer, ShimError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        match &mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(waiting) => waiting.insert(number, sender),
            None => return Err(ShimError::Broken),
        };
        let _forget = Forget { link: self, number };
        self.send(&ToShim { number, request }, descriptors).await?;
        receiver.await.map_err(|_| ShimError::Broken)?
    }

    async fn send(&self, message: &ToShim, descriptors: &[BorrowedFd<'_>]) -> Result<(), ShimError> {
        let bytes = codec::encode(message).map_err(|error| ShimError::Io(io::Error::other(error)))?;
        let sent =
            self.socket.async_io(Interest::WRITABLE, |socket| seqpacket::send(socket.as_fd(), &bytes, descriptors));
        sent.await.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected => {
                ShimError::Broken
            }
            _ => ShimError::Io(error),
        })
    }

    async fn receive(&self) -> Result<Heard, ShimError> {
        Ok(self.socket.async_io(Interest::READABLE, hear).await?)
    }

    /// Reads until the connection ends or breaks, or `over` says that the process has ended. What was said before is
    /// delivered. Nobody is answered on this link afterwards.
    pub(super) async fn read(&self, over: impl Future<Output = ()>, news: &mpsc::UnboundedSender<News>) {
        let mut over = std::pin::pin!(over);
        loop {
            tokio::select! {
                heard = self.receive() => match heard {
                    Ok(Heard::End) => break,
                    Ok(heard) => self.deliver(heard, news),
                    Err(error) => {
                        tracing::warn!(%error, "connection to a shim lost");
                        break;
                    }
                },
                () = &mut over => {
                    while let Ok(heard @ (Heard::Message(..) | Heard::Spoilt(_))) = hear(self.socket.get_ref()) {
                        self.deliver(heard, news);
                    }
                    break;
                }
            }
        }
        // Nobody waits for an answer that can't come.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn deliver(&self, heard: Heard, news: &mpsc::UnboundedSender<News>) {
        match heard {
            Heard::Message(FromShim::Event { event }, _) => {
                let _ = news.send(News::Event(event));
            }
            Heard::Message(FromShim::Reply { number, reply }, descriptors) => {
                self.answer(number, Ok((reply, descriptors)));
            }
            Heard::Spoilt(Some(number)) => {
                tracing::warn!("a shim's answer is lost: there are too many open descriptors, or it is not understood");
                self.answer(number, Err(ShimError::Unexpected));
            }
            Heard::Spoilt(None) => {
                tracing::warn!("a shim's packet is not understood");
                let _ = news.send(News::Missed);
            }
            Heard::End => {}
        }
    }

    fn answer(&self, number: u64, answer: Result<Answer, ShimError>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = waiting.as_mut().and_then(|waiting| waiting.remove(&number)) {
            let _ = sender.send(answer);
        }
    }
}

/// Takes a request's place in the list of those waited for away, also when its future is dropped.
struct Forget<'a> {
    link: &'a Link,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        let mut waiting = self.link.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = waiting.as_mut() {
            waiting.remove(&self.number);
        }
    }
}

/// Takes one packet off the socket. It is looked at first: of one whose descriptors find no room, recvmsg(2) leaves nothing
/// that would say whose it is.
fn hear(socket: &OwnedFd) -> io::Result<Heard> {
    let mut buffer = vec![0; MAX_MESSAGE];
    let seen = loop {
        match rustix::net::recv(socket, &mut buffer[..], RecvFlags::PEEK) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) | Ok((0, _)) => return Ok(Heard::End),
            other => break other?.0,
        }
    };
    let message = codec::decode::<FromShim>(&buffer[..seen]);
    match seqpacket::recv(socket.as_fd(), &mut buffer) {
        Ok((_, descriptors)) => Ok(match message {
            Ok(message) => Heard::Message(message, descriptors),
            Err(_) => Heard::Spoilt(None),
        }),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Heard::Spoilt(match message {
            Ok(FromShim::Reply { number, .. }) => Some(number),
            Ok(FromShim::Event { .. }) | Err(_) => None,
        })),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
