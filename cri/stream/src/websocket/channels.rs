//! Kubernetes' channels: the first byte of each message says which stream it is of.
//!
//! Source: `k8s.io/streaming@v0.37.2:pkg/httpstream/wsstream/conn.go`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BytesMut};

use super::{Piece, Socket};
use crate::link::{Event, Protocol, Violation};

/// In the channel's place: the message's second byte is a channel that the client closes. Version 5 only.
const CLOSE: u8 = 255;

/// How messages carry bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Binary,
    /// Text: the channel as a digit, then base64.
    Base64,
}

/// Numbered channels over a WebSocket.
#[derive(Debug)]
pub(crate) struct Channels {
    socket: Socket,
    coding: Coding,
    /// Whether [`CLOSE`] has its meaning.
    closes: bool,
    message: Message,
}

/// Where in a message we are.
#[derive(Debug)]
enum Message {
    /// Before its first byte.
    Head,
    Channel(u32),
    /// After [`CLOSE`], and what came after it.
    Closing(Option<u8>),
    /// After something that can't be understood.
    Lost,
    /// Of base64, with the characters that do not make three bytes yet.
    Text(u32, Vec<u8>),
}

impl Channels {
    pub(crate) fn new(coding: Coding, closes: bool) -> Channels {
        Channels { socket: Socket::default(), coding, closes, message: Message::Head }
    }

    fn piece(&mut self, mut bytes: BytesMut, last: bool) -> Result<Option<Event>, Violation> {
        if matches!(self.message, Message::Head) {
            let Some(&head) = bytes.first() else { return Ok(None) };
            bytes.advance(1);
            self.message = match self.coding {
                Coding::Binary if self.closes && head == CLOSE => Message::Closing(None),
                Coding::Binary => Message::Channel(u32::from(head)),
                Coding::Base64 => Message::Text(u32::from(head.wrapping_sub(b'0')), Vec::new()),
            };
        }
        let event = match &mut self.message {
            Message::Channel(stream) if !bytes.is_empty() => Some(Event::Data { stream: *stream, bytes }),
            Message::Text(stream, left) => {
                let (stream, decoded) = (*stream, decode(left, &bytes, last));
                match decoded {
                    Some(bytes) if bytes.is_empty() => None,
                    Some(bytes) => Some(Event::Data { stream, bytes: BytesMut::from(&bytes[..]) }),
                    // The reference passes a message over that it can't decode.
                    None => {
                        self.message = Message::Lost;
                        None
                    }
                }
            }
            Message::Closing(channel) => match (*channel, &bytes[..]) {
                (None, &[one]) => {
                    *channel = Some(one);
                    None
                }
                (_, []) => None,
                _ => return Err(Violation("a message that closes a channel is longer than two bytes")),
            },
            Message::Channel(_) | Message::Head | Message::Lost => None,
        };
        if !last {
            return Ok(event);
        }
        match std::mem::replace(&mut self.message, Message::Head) {
            Message::Closing(Some(channel)) => Ok(Some(Event::Finish { stream: u32::from(channel) })),
            Message::Closing(None) => Err(Violation("a message closes a channel and does not say which")),
            _ => Ok(event),
        }
    }
}

/// What `left` and `text` decode to; keeps in `left` what can't be decoded before more comes.
fn decode(left: &mut Vec<u8>, text: &[u8], last: bool) -> Option<Vec<u8>> {
    left.extend_from_slice(text);
    let whole = if last { left.len() } else { left.len() / 4 * 4 };
    let bytes = STANDARD.decode(left.get(..whole)?).ok()?;
    left.drain(..whole);
    Some(bytes)
}

impl Protocol for Channels {
    fn receive(&mut self, input: &mut BytesMut) -> Result<Option<Event>, Violation> {
        while let Some(piece) = self.socket.receive(input)? {
            let event = match piece {
                Piece::Data { last, bytes, .. } => self.piece(bytes, last)?,
                Piece::Ping => Some(Event::Alive),
                Piece::Close => Some(Event::Goodbye),
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    fn data(&mut self, stream: u32, bytes: &[u8]) {
        let channel = u8::try_from(stream).unwrap_or(u8::MAX);
        match self.coding {
            Coding::Binary => self.socket.send(false, &[channel], bytes),
            Coding::Base64 => {
                self.socket.send(true, &[channel.wrapping_add(b'0')], STANDARD.encode(bytes).as_bytes());
            }
        }
    }

    /// There is no word for it in this direction: the client learns it from the end of the connection.
    fn finish(&mut self, _: u32) {}

    fn reset(&mut self, _: u32) {}

    fn ping(&mut self) {
        self.socket.ping();
    }

    fn goodbye(&mut self) {
        self.socket.close();
    }

    fn output(&mut self) -> &mut BytesMut {
        &mut self.socket.output
    }
}
