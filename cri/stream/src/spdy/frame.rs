//! The frames of SPDY/3.1: big-endian, eight bytes of header.

use bytes::{BufMut, BytesMut};

use crate::link::Violation;

pub(super) const HEADER: usize = 8;
/// The longest payload that a frame can carry.
const LONGEST: usize = 0x00ff_ffff;

const CONTROL: u32 = 0x8000_0000;
const VERSION: u32 = 3;
const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// The first eight bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    Data { stream: u32, fin: bool, length: usize },
    Control { kind: u16, flags: u8, length: usize },
}

impl Header {
    /// Reads without consuming; `None` while there are fewer than eight bytes.
    pub(super) fn parse(input: &[u8]) -> Result<Option<Header>, Violation> {
        let Some(&[a, b, c, d, flags, l0, l1, l2]) = input.first_chunk() else { return Ok(None) };
        let first = u32::from_be_bytes([a, b, c, d]);
        let length = usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2);
        if first & CONTROL == 0 {
            if first == 0 {
                return Err(Violation("a DATA frame is of stream 0"));
            }
            return Ok(Some(Header::Data { stream: first, fin: flags & FIN != 0, length }));
        }
        if (first & !CONTROL) >> 16 != VERSION {
            return Err(Violation("a control frame is not of SPDY version 3"));
        }
        Ok(Some(Header::Control { kind: u16::from_be_bytes([c, d]), flags, length }))
    }
}

/// A whole control frame. `block` is still compressed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Control<'a> {
    SynStream {
        stream: u32,
        fin: bool,
        unidirectional: bool,
        block: &'a [u8],
    },
    SynReply {
        block: &'a [u8],
    },
    Headers {
        stream: u32,
        fin: bool,
        block: &'a [u8],
    },
    RstStream {
        stream: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    /// SETTINGS, WINDOW_UPDATE, and kinds that the specification says to pass over.
    Passed,
}

impl<'a> Control<'a> {
    pub(super) fn parse(kind: u16, flags: u8, body: &'a [u8]) -> Result<Control<'a>, Violation> {
        let short = Violation("a control frame is shorter than its kind needs");
        Ok(match kind {
            SYN_STREAM => {
                let stream = word(body, 0).ok_or(short)?;
                // Eight bytes that nobody uses: the associated stream, priority and slot are of no meaning here.
                let block = body.get(10..).ok_or(short)?;
                Control::SynStream { stream, fin: flags & FIN != 0, unidirectional: flags & UNIDIRECTIONAL != 0, block }
            }
            SYN_REPLY => Control::SynReply { block: body.get(4..).ok_or(short)? },
            HEADERS => {
                let stream = word(body, 0).ok_or(short)?;
                Control::Headers { stream, fin: flags & FIN != 0, block: body.get(4..).ok_or(short)? }
            }
            RST_STREAM if body.len() == 8 => Control::RstStream { stream: word(body, 0).ok_or(short)? },
            PING if body.len() == 4 => match word(body, 0).ok_or(short)? {
                0 => return Err(Violation("a PING has number 0")),
                id => Control::Ping { id },
            },
            GOAWAY if body.len() == 8 => Control::GoAway,
            SETTINGS if body.len() >= 4 => Control::Passed,
            WINDOW_UPDATE if body.len() == 8 => Control::Passed,
            RST_STREAM | PING | GOAWAY | SETTINGS | WINDOW_UPDATE => {
                return Err(Violation("a control frame has not the length of its kind"));
            }
            _ => Control::Passed,
        })
    }
}

/// The word at `at`, without its highest bit, which is reserved for stream numbers.
fn word(body: &[u8], at: usize) -> Option<u32> {
    let bytes = body.get(at..at + 4)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes) & 0x7fff_ffff)
}

/// DATA frames with `bytes`: one, unless there are more bytes than one can carry.
pub(super) fn data(out: &mut BytesMut, stream: u32, fin: bool, bytes: &[u8]) {
    let mut rest = bytes;
    loop {
        let (now, later) = rest.split_at(rest.len().min(LONGEST));
        rest = later;
        out.put_u32(stream & !CONTROL);
        lengths(out, if fin && rest.is_empty() { FIN } else { 0 }, now.len());
        out.put_slice(now);
        if rest.is_empty() {
            return;
        }
    }
}

pub(super) fn syn_reply(out: &mut BytesMut, stream: u32, block: &[u8]) {
    control(out, SYN_REPLY, 4 + block.len());
    out.put_u32(stream);
    out.put_slice(block);
}

pub(super) fn rst_stream(out: &mut BytesMut, stream: u32, status: u32) {
    control(out, RST_STREAM, 8);
    out.put_u32(stream);
    out.put_u32(status);
}

pub(super) fn ping(out: &mut BytesMut, id: u32) {
    control(out, PING, 4);
    out.put_u32(id);
}

pub(super) fn goaway(out: &mut BytesMut, last: u32) {
    control(out, GOAWAY, 8);
    out.put_u32(last);
    out.put_u32(0);
}

fn control(out: &mut BytesMut, kind: u16, length: usize) {
    out.put_u32(CONTROL | VERSION << 16 | u32::from(kind));
    lengths(out, 0, length);
}

/// Flags and a length of 24 bits; `length` is at most [`LONGEST`].
fn lengths(out: &mut BytesMut, flags: u8, length: usize) {
    out.put_u8(flags);
    out.put_uint(length.min(LONGEST) as u64, 3);
}
