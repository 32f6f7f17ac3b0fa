//! The two ends of a stream as `AsyncRead` and `AsyncWrite`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{CHUNK, KEPT, Link, UNREAD, UNSENT, wake};
use crate::backend::{Reader, Writer};

/// Both ends of one stream.
pub(crate) struct Stream {
    pub(crate) id: u32,
    incoming: Incoming,
    outgoing: Outgoing,
}

struct Incoming(Link, u32);

struct Outgoing(Link, u32);

impl Stream {
    pub(super) fn new(link: Link, id: u32) -> Stream {
        Stream { id, incoming: Incoming(link.clone(), id), outgoing: Outgoing(link, id) }
    }

    pub(crate) fn link(&self) -> Link {
        self.incoming.0.clone()
    }

    /// The stream as what it brings. Dropping it tells the client that nobody reads on, and not before: to client-go
    /// that is the end of its standard input.
    pub(crate) fn reader(self) -> Reader {
        Box::pin(self)
    }

    /// The stream as where it leads; what the client sends is passed over.
    pub(crate) fn writer(self) -> Writer {
        Box::pin(self.outgoing)
    }

    /// A writer whose end the client learns at [`Link::release`].
    pub(crate) fn held(self) -> Writer {
        if let Some(slot) = self.outgoing.0.lock().slots.get_mut(&self.id) {
            slot.held = true;
        }
        self.writer()
    }

    pub(crate) fn split(self) -> (Reader, Writer) {
        (Box::pin(self.incoming), Box::pin(self.outgoing))
    }

    /// Sends a last, short word without waiting for the client, and the end.
    pub(crate) fn last_word(self, bytes: &[u8]) {
        self.send(bytes);
        self.outgoing.finish();
    }

    /// Sends a short word without waiting for the client.
    pub(crate) fn send(&self, bytes: &[u8]) {
        let mut state = self.outgoing.0.lock();
        if state.slots.get(&self.id).is_some_and(|slot| !slot.shut) && !state.gone {
            state.protocol.data(self.id, bytes);
            wake(&mut state.driver);
        }
    }

    /// Ends both directions at once.
    pub(crate) fn reset(self) {
        self.outgoing.0.reset(self.id);
    }
}

impl Link {
    /// Ends both directions of a stream at once.
    pub(crate) fn reset(&self, id: u32) {
        let mut state = self.lock();
        state.protocol.reset(id);
        if let Some(slot) = state.slots.get_mut(&id) {
            slot.finished = true;
            slot.shut = true;
            wake(&mut slot.reader);
            wake(&mut slot.writer);
        }
        wake(&mut state.driver);
    }
}

impl Outgoing {
    fn finish(&self) {
        self.0.lock().finish(self.1);
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().incoming).poll_read(context, buffer)
    }
}

impl AsyncRead for Incoming {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        let gone = state.gone;
        let Some(slot) = state.slots.get_mut(&self.1) else { return Poll::Ready(Ok(())) };
        if slot.incoming.is_empty() {
            if slot.reset {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, "the client broke off")));
            }
            if slot.finished {
                return Poll::Ready(Ok(()));
            }
            if gone {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the client is gone")));
            }
            slot.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let taken = slot.incoming.len().min(buffer.remaining());
        buffer.put_slice(slot.incoming.get(..taken).unwrap_or_default());
        slot.incoming.advance(taken);
        if slot.incoming.is_empty() && slot.incoming.capacity() > KEPT {
            slot.incoming = BytesMut::new();
        }
        let full = state.unread >= UNREAD;
        state.unread -= taken;
        if full && state.unread < UNREAD {
            wake(&mut state.driver);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        let Some(slot) = state.slots.get_mut(&self.1) else { return };
        slot.reading = false;
        let unread = std::mem::take(&mut slot.incoming).len();
        state.unread -= unread;
        state.tidy(self.1);
        wake(&mut state.driver);
    }
}

impl AsyncWrite for Outgoing {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock();
        let full = state.protocol.output().len() >= UNSENT;
        let gone = state.gone;
        let Some(slot) = state.slots.get_mut(&self.1).filter(|slot| !slot.shut && !gone) else {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, "the client reads no more")));
        };
        if full {
            slot.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let bytes = bytes.get(..CHUNK).unwrap_or(bytes);
        if !bytes.is_empty() {
            state.protocol.data(self.1, bytes);
            wake(&mut state.driver);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    /// The connection sends by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.finish(self.1);
        if let Some(slot) = state.slots.get_mut(&self.1) {
            slot.writing = false;
        }
        state.tidy(self.1);
    }
}
