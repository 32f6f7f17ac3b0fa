//! WebSockets (RFC 6455), the server's side, without any I/O.
//!
//! Own code because of how payloads come: old clients send a whole file in one frame, and the known crates hold a
//! message until it is complete. Here its bytes are passed on as they arrive, so neither frames nor messages need a
//! limit.

mod channels;
mod frame;
#[cfg(test)]
pub(crate) mod tests;
mod tunnel;

use bytes::{Buf, BytesMut};

use crate::link::Violation;
pub(crate) use channels::{Channels, Coding};
use frame::{Header, Opcode};
pub(crate) use tunnel::Tunnel;

/// Normal closure, RFC 6455 section 7.4.1: client-go takes any other one for an error.
const NORMAL: u16 = 1000;

/// The frames of one connection, in both directions.
#[derive(Debug, Default)]
pub(crate) struct Socket {
    output: BytesMut,
    payload: Option<Payload>,
    /// Within a message of several frames.
    continued: bool,
    closed: bool,
}

#[derive(Debug)]
struct Payload {
    left: u64,
    mask: [u8; 4],
    /// Where in the mask the next byte is.
    phase: usize,
    last: bool,
    first: bool,
}

/// What the client's frames bring.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Bytes of a message: its `first`, its `last`, or some between.
    Data {
        first: bool,
        last: bool,
        bytes: BytesMut,
    },
    Ping,
    Close,
}

impl Socket {
    pub(crate) fn receive(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, Violation> {
        loop {
            if let Some(payload) = &mut self.payload {
                if payload.left > 0 && input.is_empty() {
                    return Ok(None);
                }
                let piece = payload.take(input);
                if payload.left == 0 {
                    self.payload = None;
                }
                return Ok(Some(piece));
            }
            let Some((header, taken)) = Header::parse(input)? else { return Ok(None) };
            if header.opcode.is_control() {
                let length = usize::try_from(header.length).unwrap_or(usize::MAX);
                if input.len() - taken < length {
                    return Ok(None);
                }
                input.advance(taken);
                let mut body = input.split_to(length);
                frame::unmask(&mut body, header.mask, 0);
                match header.opcode {
                    Opcode::Ping => {
                        frame::write(&mut self.output, Opcode::Pong, &[], &body);
                        return Ok(Some(Piece::Ping));
                    }
                    Opcode::Close => {
                        self.close();
                        return Ok(Some(Piece::Close));
                    }
                    _ => {}
                }
                continue;
            }
            input.advance(taken);
            let first = header.opcode != Opcode::Continuation;
            if first == self.continued {
                return Err(Violation("a WebSocket message begins within another, or goes on without a beginning"));
            }
            self.continued = !header.fin;
            self.payload = Some(Payload { left: header.length, mask: header.mask, phase: 0, last: header.fin, first });
        }
    }

    /// One message out of two parts.
    fn send(&mut self, text: bool, head: &[u8], body: &[u8]) {
        if !self.closed {
            frame::write(&mut self.output, if text { Opcode::Text } else { Opcode::Binary }, head, body);
        }
    }

    fn ping(&mut self) {
        if !self.closed {
            frame::write(&mut self.output, Opcode::Ping, &[], &[]);
        }
    }

    fn close(&mut self) {
        if !std::mem::replace(&mut self.closed, true) {
            frame::write(&mut self.output, Opcode::Close, &[], &NORMAL.to_be_bytes());
        }
    }
}

impl Payload {
    fn take(&mut self, input: &mut BytesMut) -> Piece {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
        let mut bytes = input.split_to(length);
        frame::unmask(&mut bytes, self.mask, self.phase);
        self.phase = (self.phase + length) % 4;
        self.left -= length as u64;
        Piece::Data { first: std::mem::take(&mut self.first), last: self.last && self.left == 0, bytes }
    }
}
