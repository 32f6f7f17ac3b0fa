//! Frames as RFC 6455 section 5.2 draws them.

use bytes::{BufMut, BytesMut};

use crate::link::Violation;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    fn parse(bits: u8) -> Result<Opcode, Violation> {
        Ok(match bits {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return Err(Violation("a WebSocket frame is of an unknown kind")),
        })
    }

    pub(super) fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

/// A client's frame, but for its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) fin: bool,
    pub(super) opcode: Opcode,
    pub(super) mask: [u8; 4],
    pub(super) length: u64,
}

impl Header {
    /// Reads without consuming: the header and how many bytes it takes, or `None` while some are missing.
    pub(super) fn parse(input: &[u8]) -> Result<Option<(Header, usize)>, Violation> {
        let Some(&[first, second]) = input.first_chunk() else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Violation("a WebSocket frame uses an extension that was not agreed on"));
        }
        if second & 0x80 == 0 {
            return Err(Violation("a client's WebSocket frame has no mask"));
        }
        let opcode = Opcode::parse(first & 0x0f)?;
        let fin = first & 0x80 != 0;
        let short = second & 0x7f;
        if opcode.is_control() && (short > 125 || !fin) {
            return Err(Violation("a WebSocket control frame is long or in parts"));
        }
        let width = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let taken = 2 + width + 4;
        let Some(rest) = input.get(2..taken) else { return Ok(None) };
        let (wide, mask) = rest.split_at(width);
        let length = match width {
            0 => u64::from(short),
            _ => wide.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        if length > i64::MAX as u64 {
            return Err(Violation("a WebSocket frame's length has its highest bit set"));
        }
        let &[a, b, c, d] = mask else { return Ok(None) };
        Ok(Some((Header { fin, opcode, mask: [a, b, c, d], length }, taken)))
    }
}

/// Takes a client's mask off `bytes`, the first of which is at `phase` in it.
pub(super) fn unmask(bytes: &mut [u8], mask: [u8; 4], phase: usize) {
    let mut mask = mask;
    mask.rotate_left(phase % 4);
    for chunk in bytes.chunks_mut(4) {
        for (byte, key) in chunk.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
}

/// A server's frame: whole, without a mask. Its payload is `head` and `body`.
pub(super) fn write(out: &mut BytesMut, opcode: Opcode, head: &[u8], body: &[u8]) {
    out.put_u8(0x80 | opcode as u8);
    let length = head.len() + body.len();
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => out.put_u8(short),
        (_, Ok(medium)) => {
            out.put_u8(126);
            out.put_u16(medium);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(length as u64);
        }
    }
    out.put_slice(head);
    out.put_slice(body);
}
