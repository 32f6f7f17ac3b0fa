//! The connection to a shim: numbered requests out, replies and events in.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use berth_plan::MAX_MESSAGE;
use berth_plan::codec;
use berth_plan::message::{Event, FromShim, Reply, Request, ToShim};
use berth_sys::seqpacket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use super::ShimError;
use crate::watched::watched;

#[derive(Debug)]
pub(super) struct Link {
    socket: AsyncFd<OwnedFd>,
    next: AtomicU64,
    /// Who waits for which reply; `None` once nobody will answer any more.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>,
}

/// A reply, with the descriptors that came beside it.
pub(super) type Answer = (Reply, Vec<OwnedFd>);

impl Link {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            socket: watched(socket, Interest::READABLE | Interest::WRITABLE)?,
            next: AtomicU64::new(1),
            waiting: Mutex::new(Some(HashMap::new())),
        })
    }

    /// The first request of a connection, before [`read`] reads it.
    pub(super) async fn first(&self, request: Request) -> Result<Reply, ShimError> {
        self.send(&ToShim { number: 0x1_0000, request }, &[]).await?;
        loop {
            match self.receive().await?.ok_or(ShimError::Gone)?.0 {
                FromShim::Reply { reply, .. } => return Ok(reply),
                // The shim sends events to every client. What has ended by now is in its greeting, too.
                FromShim::Event { .. } => {}
            }
        }
    }

    pub(super) async fn call(&self, request: Request, descriptors: &[BorrowedFd<'_>]) -> Result<Answer, ShimError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        match &mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(waiting) => waiting.insert(number, sender),
            None => return Err(ShimError::Gone),
        };
        let _forget = Forget { link: self, number };
        self.send(&ToShim { number, request }, descriptors).await?;
        receiver.await.map_err(|_| ShimError::Gone)
    }

    async fn send(&self, message: &ToShim, descriptors: &[BorrowedFd<'_>]) -> Result<(), ShimError> {
        let bytes = codec::encode(message).map_err(|error| ShimError::Io(io::Error::other(error)))?;
        let sent =
            self.socket.async_io(Interest::WRITABLE, |socket| seqpacket::send(socket.as_fd(), &bytes, descriptors));
        sent.await.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected => ShimError::Gone,
            _ => ShimError::Io(error),
        })
    }

    /// The next packet; `None` at the end of the connection.
    async fn receive(&self) -> Result<Option<Packet>, ShimError> {
        let received = self.socket.async_io(Interest::READABLE, packet);
        received.await.map_err(ShimError::Io)
    }

    fn deliver(&self, (message, descriptors): Packet, events: &mpsc::UnboundedSender<Event>) {
        match message {
            FromShim::Event { event } => {
                let _ = events.send(event);
            }
            FromShim::Reply { number, reply } => {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(sender) = waiting.as_mut().and_then(|waiting| waiting.remove(&number)) {
                    let _ = sender.send((reply, descriptors));
                }
            }
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

/// Reads until the shim is gone: the connection ends, or the process, of which a child that is just being started may
/// hold the connection open. What it said before is delivered.
pub(super) async fn read(link: Arc<Link>, process: OwnedFd, events: mpsc::UnboundedSender<Event>) {
    let process = match watched(process, Interest::READABLE) {
        Ok(process) => process,
        Err(error) => {
            tracing::error!(%error, "a shim's process can't be watched");
            return;
        }
    };
    loop {
        tokio::select! {
            received = link.receive() => match received {
                Ok(Some(message)) => link.deliver(message, &events),
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "connection to a shim lost");
                    break;
                }
            },
            _ = process.readable() => {
                while let Ok(Some(message)) = packet(link.socket.get_ref()) {
                    link.deliver(message, &events);
                }
                break;
            }
        }
    }
    // Nobody waits for an answer that can't come.
    link.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
}

type Packet = (FromShim, Vec<OwnedFd>);

fn packet(socket: &OwnedFd) -> io::Result<Option<Packet>> {
    let mut buffer = vec![0; MAX_MESSAGE];
    match seqpacket::recv(socket.as_fd(), &mut buffer) {
        Ok((0, _)) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Err(error) => Err(error),
        Ok((length, descriptors)) => codec::decode(&buffer[..length])
            .map(|message| Some((message, descriptors)))
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}
