//! SPDY/3.1 as far as `moby/spdystream` speaks it, without any I/O: bytes in, events and bytes out.
//!
//! Source: draft-mbelshe-httpbis-spdy-00 and SPDY/3.1. Neither side of this dialect keeps windows: WINDOW_UPDATE and
//! SETTINGS are read and passed over, and what bounds memory is that the caller stops reading the connection.
//! Payloads of DATA frames are passed on as they come, so that no frame is ever held whole.

mod dictionary;
mod frame;
mod headers;
#[cfg(test)]
pub(crate) mod tests;

use bytes::{Buf, BytesMut};

use crate::link::{Event, Opened, Protocol, Violation};
use frame::Control;
use headers::Inflater;

/// The longest control frame that is read: far above what a client's four short headers need.
const CONTROL: usize = 16 * 1024;

const CANCEL: u32 = 5;
const PROTOCOL_ERROR: u32 = 1;

/// The server's end of one connection.
#[derive(Debug)]
pub(crate) struct Connection {
    output: BytesMut,
    inflater: Inflater,
    state: State,
    /// The last stream that the client opened; the next has a greater number.
    last: u32,
    /// Whether the first header block was sent: the zlib stream of a direction has one beginning.
    replied: bool,
    /// Our pings have even numbers.
    ping: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Frame,
    Payload { stream: u32, left: usize, fin: bool },
}

impl Connection {
    pub(crate) fn new() -> Connection {
        Connection {
            output: BytesMut::new(),
            inflater: Inflater::new(),
            state: State::Frame,
            last: 0,
            replied: false,
            ping: 0,
        }
    }

    /// One control frame; what has no meaning for the streams gives nothing.
    fn control(&mut self, kind: u16, flags: u8, body: &[u8]) -> Result<Option<Event>, Violation> {
        let event = match Control::parse(kind, flags, body)? {
            Control::SynStream { stream, fin, unidirectional, block } => {
                // The block is read even for a refused stream: all of them are one zlib stream.
                let headers = self.inflater.block(block)?;
                if stream % 2 == 0 || stream <= self.last {
                    self.rst(stream, PROTOCOL_ERROR);
                    return Ok(None);
                }
                self.last = stream;
                let opened = Opened {
                    kind: headers.value("streamtype"),
                    port: headers.value("port"),
                    request: headers.value("requestid"),
                };
                self.reply(stream);
                Some(Event::Open { stream, opened, finished: fin, unidirectional })
            }
            Control::Headers { stream, fin, block } => {
                self.inflater.block(block)?;
                fin.then_some(Event::Finish { stream })
            }
            Control::SynReply { block } => {
                self.inflater.block(block)?;
                None
            }
            Control::RstStream { stream } => Some(Event::Reset { stream }),
            // Odd: the client's own. Even: an answer to ours.
            Control::Ping { id } if id % 2 == 1 => {
                frame::ping(&mut self.output, id);
                Some(Event::Alive)
            }
            Control::GoAway => Some(Event::Goodbye),
            Control::Ping { .. } | Control::Passed => None,
        };
        Ok(event)
    }

    fn reply(&mut self, stream: u32) {
        frame::syn_reply(&mut self.output, stream, headers::empty(!self.replied));
        self.replied = true;
    }

    fn rst(&mut self, stream: u32, status: u32) {
        frame::rst_stream(&mut self.output, stream, status);
    }
}

impl Protocol for Connection {
    fn receive(&mut self, input: &mut BytesMut) -> Result<Option<Event>, Violation> {
        loop {
            match self.state {
                State::Payload { stream, left: 0, fin } => {
                    self.state = State::Frame;
                    if fin {
                        return Ok(Some(Event::Finish { stream }));
                    }
                }
                State::Payload { stream, left, fin } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let bytes = input.split_to(left.min(input.len()));
                    self.state = State::Payload { stream, left: left - bytes.len(), fin };
                    return Ok(Some(Event::Data { stream, bytes }));
                }
                State::Frame => {
                    let Some(header) = frame::Header::parse(input)? else { return Ok(None) };
                    match header {
                        frame::Header::Data { stream, fin, length } => {
                            input.advance(frame::HEADER);
                            self.state = State::Payload { stream, left: length, fin };
                        }
                        frame::Header::Control { length, .. } if length > CONTROL => {
                            return Err(Violation("a control frame is longer than 16 KiB"));
                        }
                        frame::Header::Control { length, .. } if input.len() < frame::HEADER + length => {
                            return Ok(None);
                        }
                        frame::Header::Control { kind, flags, length } => {
                            input.advance(frame::HEADER);
                            let body = input.split_to(length);
                            if let Some(event) = self.control(kind, flags, &body)? {
                                return Ok(Some(event));
                            }
                        }
                    }
                }
            }
        }
    }

    fn data(&mut self, stream: u32, bytes: &[u8]) {
        frame::data(&mut self.output, stream, false, bytes);
    }

    fn finish(&mut self, stream: u32) {
        frame::data(&mut self.output, stream, true, &[]);
    }

    fn reset(&mut self, stream: u32) {
        self.rst(stream, CANCEL);
    }

    fn ping(&mut self) {
        self.ping = self.ping % 0x7fff_fffc + 2;
        frame::ping(&mut self.output, self.ping);
    }

    fn goodbye(&mut self) {
        frame::goaway(&mut self.output, self.last);
    }

    fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }
}
