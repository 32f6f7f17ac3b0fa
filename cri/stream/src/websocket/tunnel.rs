//! SPDY inside binary messages, as `kubectl port-forward` speaks it: their bounds mean nothing.
//!
//! Source: `apiserver@v0.37.2:pkg/util/proxy/streamtunnel.go`.

use bytes::BytesMut;

use super::{Piece, Socket};
use crate::link::{Event, Protocol, Violation};
use crate::spdy::Connection;

/// A SPDY connection over a WebSocket.
#[derive(Debug)]
pub(crate) struct Tunnel {
    socket: Socket,
    spdy: Connection,
    /// What came out of the WebSocket and is no whole SPDY frame yet.
    input: BytesMut,
}

impl Tunnel {
    pub(crate) fn new() -> Tunnel {
        Tunnel { socket: Socket::default(), spdy: Connection::new(), input: BytesMut::new() }
    }

    /// Wraps what SPDY has to say.
    fn wrap(&mut self) {
        let bytes = self.spdy.output().split();
        if !bytes.is_empty() {
            self.socket.send(false, &[], &bytes);
        }
    }
}

impl Protocol for Tunnel {
    fn receive(&mut self, input: &mut BytesMut) -> Result<Option<Event>, Violation> {
        loop {
            let event = self.spdy.receive(&mut self.input)?;
            self.wrap();
            if event.is_some() {
                return Ok(event);
            }
            match self.socket.receive(input)? {
                None => return Ok(None),
                Some(Piece::Data { bytes, .. }) => self.input.unsplit(bytes),
                Some(Piece::Ping) => return Ok(Some(Event::Alive)),
                Some(Piece::Close) => return Ok(Some(Event::Goodbye)),
            }
        }
    }

    fn data(&mut self, stream: u32, bytes: &[u8]) {
        self.spdy.data(stream, bytes);
        self.wrap();
    }

    fn finish(&mut self, stream: u32) {
        self.spdy.finish(stream);
        self.wrap();
    }

    fn reset(&mut self, stream: u32) {
        self.spdy.reset(stream);
        self.wrap();
    }

    fn ping(&mut self) {
        self.socket.ping();
    }

    fn goodbye(&mut self) {
        self.spdy.goodbye();
        self.wrap();
        self.socket.close();
    }

    fn output(&mut self) -> &mut BytesMut {
        &mut self.socket.output
    }
}
