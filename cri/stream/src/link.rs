//! One upgraded connection, and the streams that it carries.
//!
//! A [`Protocol`] says what bytes mean, without I/O; a [`Link`] moves them. Memory is bounded on every side: what the
//! client sent and nobody has taken ([`UNREAD`]; the connection is not read beyond that, which holds back all of its
//! streams, since neither protocol keeps windows), what it has not taken ([`UNSENT`]; writers wait), and the number
//! of streams.

mod drive;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;

pub(crate) use drive::{Pace, converse};
pub(crate) use stream::Stream;

/// What is read ahead of the backend, per connection, in bytes.
const UNREAD: usize = 256 * 1024;
/// What a backend may write ahead of the client, per connection, in bytes.
const UNSENT: usize = 128 * 1024;
/// Beyond this the connection is not read either: answers to pings and refusals also take room.
const STUFFED: usize = 2 * UNSENT;
/// The most bytes that one write of a backend becomes.
const CHUNK: usize = 32 * 1024;
/// An empty buffer that has grown past this is given back.
const KEPT: usize = 16 * 1024;

/// What a client did that its protocol forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Violation(pub(crate) &'static str);

/// What bytes from the client mean.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Open {
        stream: u32,
        opened: Opened,
        finished: bool,
        unidirectional: bool,
    },
    Data {
        stream: u32,
        bytes: BytesMut,
    },
    Finish {
        stream: u32,
    },
    Reset {
        stream: u32,
    },
    /// The client shows that it is there.
    Alive,
    /// The client ends the connection.
    Goodbye,
}

/// What a client says of a stream that it opens; "" for what it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) kind: String,
    pub(crate) port: String,
    pub(crate) request: String,
}

/// A multiplexing protocol's state, free of I/O.
pub(crate) trait Protocol: Send {
    /// Takes bytes off the front of `input` until they mean something; `None` when more are needed.
    fn receive(&mut self, input: &mut BytesMut) -> Result<Option<Event>, Violation>;
    fn data(&mut self, stream: u32, bytes: &[u8]);
    fn finish(&mut self, stream: u32);
    fn reset(&mut self, stream: u32);
    /// Asks the client for a sign of life.
    fn ping(&mut self);
    fn goodbye(&mut self);
    /// What is to be sent.
    fn output(&mut self) -> &mut BytesMut;
}

/// A handle on a connection's state. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Link(Arc<Mutex<State>>);

struct State {
    protocol: Box<dyn Protocol>,
    input: BytesMut,
    slots: HashMap<u32, Slot>,
    /// The most streams at a time.
    limit: usize,
    arrivals: VecDeque<(u32, Opened)>,
    /// Bytes in all slots.
    unread: usize,
    /// The client can't be reached any more.
    gone: bool,
    /// No stream matters any more; what is to be sent still is.
    closing: bool,
    /// Counts what the client did, but for answers to pings, and what of our output it took, but for pings.
    signs: u64,
    /// Bytes at the front of the output that only ask whether the client is there.
    asking: usize,
    driver: Option<Waker>,
    acceptor: Option<Waker>,
}

/// One stream. It goes when both of its handles have, and the client's word on it with them.
#[derive(Default)]
struct Slot {
    incoming: BytesMut,
    /// The client sends no more.
    finished: bool,
    /// The client broke the stream off, rather than coming to its end.
    reset: bool,
    /// The client wants no more, or we have said that there is none.
    shut: bool,
    /// The end of our side is told at [`Link::release`] only.
    held: bool,
    reading: bool,
    writing: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Link {
    pub(crate) fn new(protocol: Box<dyn Protocol>, limit: usize) -> Link {
        Link(Arc::new(Mutex::new(State {
            protocol,
            input: BytesMut::new(),
            slots: HashMap::new(),
            limit,
            arrivals: VecDeque::new(),
            unread: 0,
            gone: false,
            closing: false,
            signs: 0,
            asking: 0,
            driver: None,
            acceptor: None,
        })))
    }

    /// A stream that the protocol has without being told, as a channel of a WebSocket.
    pub(crate) fn channel(&self, id: u32) -> Stream {
        self.lock().slots.insert(id, Slot { reading: true, writing: true, ..Slot::default() });
        Stream::new(self.clone(), id)
    }

    /// The next stream that the client opens; `None` once it is gone.
    pub(crate) async fn accept(&self) -> Option<(Stream, Opened)> {
        let (id, opened) = std::future::poll_fn(|context| self.poll_accept(context)).await?;
        Some((Stream::new(self.clone(), id), opened))
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<Option<(u32, Opened)>> {
        let mut state = self.lock();
        if let Some(arrival) = state.arrivals.pop_front() {
            return Poll::Ready(Some(arrival));
        }
        if state.gone {
            return Poll::Ready(None);
        }
        state.acceptor = Some(context.waker().clone());
        Poll::Pending
    }

    /// Tells the client the end of the streams that were held.
    pub(crate) fn release(&self) {
        let mut state = self.lock();
        let held: Vec<u32> = state.slots.iter().filter(|(_, slot)| slot.held).map(|(id, _)| *id).collect();
        for id in held {
            if let Some(slot) = state.slots.get_mut(&id) {
                slot.held = false;
            }
            state.finish(id);
            state.tidy(id);
        }
    }

    /// Nothing on this connection panics while it holds the lock; if something did, the state would still be whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What the client did.
    fn happen(&mut self, event: Event) {
        self.signs += 1;
        match event {
            Event::Open { stream, opened, finished, unidirectional } => {
                if self.closing || self.slots.len() >= self.limit {
                    self.protocol.reset(stream);
                    return;
                }
                let slot = Slot { finished, shut: unidirectional, reading: true, writing: true, ..Slot::default() };
                self.slots.insert(stream, slot);
                self.arrivals.push_back((stream, opened));
                wake(&mut self.acceptor);
            }
            Event::Data { stream, bytes } => {
                let Some(slot) = self.slots.get_mut(&stream).filter(|slot| slot.reading && !slot.finished) else {
                    return;
                };
                slot.incoming.extend_from_slice(&bytes);
                self.unread += bytes.len();
                wake(&mut slot.reader);
            }
            Event::Finish { stream } => {
                if let Some(slot) = self.slots.get_mut(&stream) {
                    slot.finished = true;
                    wake(&mut slot.reader);
                }
            }
            Event::Reset { stream } => {
                if let Some(slot) = self.slots.get_mut(&stream) {
                    slot.finished = true;
                    slot.reset = true;
                    slot.shut = true;
                    wake(&mut slot.reader);
                    wake(&mut slot.writer);
                }
            }
            Event::Alive => {}
            Event::Goodbye => self.lose(),
        }
    }

    /// The client is gone: everyone who waits for it learns that.
    fn lose(&mut self) {
        self.gone = true;
        wake(&mut self.acceptor);
        wake(&mut self.driver);
        for slot in self.slots.values_mut() {
            wake(&mut slot.reader);
            wake(&mut slot.writer);
        }
    }

    /// Whether the connection is to be read.
    fn hungry(&mut self) -> bool {
        self.unread < UNREAD && self.protocol.output().len() < STUFFED
    }

    /// Tells the client the end of our side of a stream, once.
    fn finish(&mut self, id: u32) {
        let Some(slot) = self.slots.get_mut(&id).filter(|slot| !slot.shut && !slot.held) else { return };
        slot.shut = true;
        self.protocol.finish(id);
        wake(&mut self.driver);
    }

    /// Forgets a stream that nobody holds. What the client still sends on it is passed over.
    fn tidy(&mut self, id: u32) {
        if self.slots.get(&id).is_some_and(|slot| !slot.reading && !slot.writing && !slot.held) {
            self.slots.remove(&id);
        }
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
