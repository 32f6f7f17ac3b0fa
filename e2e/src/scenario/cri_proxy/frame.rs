//! HTTP/2 as far as a proxy that cuts calls needs it: where frames begin and end, and to which call they belong
//! (RFC 9113, section 4.1).

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What a client sends first.
pub(super) const PREFACE: usize = 24;
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PING: u8 = 6;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const HEAD: usize = 9;

/// One frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    bytes: Vec<u8>,
}

impl Frame {
    /// A question that the other side answers with the same 8 bytes once it has read all that came before.
    pub(super) fn ping(payload: [u8; 8]) -> Self {
        let mut bytes = vec![0, 0, 8, PING, 0, 0, 0, 0, 0];
        bytes.extend(payload);
        Self { bytes }
    }

    /// The next one; `None` at the end between two.
    pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let mut bytes = vec![0; HEAD];
        match from.read_exact(&mut bytes[..1]).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        };
        from.read_exact(&mut bytes[1..]).await?;
        // Three bytes, so never more than 16 MiB.
        let length = usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
        bytes.resize(HEAD + length, 0);
        from.read_exact(&mut bytes[HEAD..]).await?;
        Ok(Some(Self { bytes }))
    }

    pub(super) async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        to.write_all(&self.bytes).await
    }

    /// The first half of it: nobody can make sense of that.
    pub(super) async fn write_half(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        to.write_all(&self.bytes[..self.bytes.len() / 2]).await
    }

    pub(super) fn kind(&self) -> u8 {
        self.bytes[3]
    }

    /// The call's number; 0 is the connection itself.
    pub(super) fn stream(&self) -> u32 {
        u32::from_be_bytes([self.bytes[5] & 0x7f, self.bytes[6], self.bytes[7], self.bytes[8]])
    }

    pub(super) fn length(&self) -> usize {
        self.bytes.len() - HEAD
    }

    /// Whether its side of the call says no more.
    pub(super) fn ends_stream(&self) -> bool {
        matches!(self.kind(), DATA | HEADERS) && self.bytes[4] & END_STREAM != 0
    }

    /// Whether it answers such a question.
    pub(super) fn answers_ping(&self, payload: [u8; 8]) -> bool {
        self.kind() == PING && self.bytes[4] & ACK != 0 && self.bytes[HEAD..] == payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("tokio").block_on(work)
    }

    #[test]
    fn frames_are_found_and_pass_unchanged() {
        // HEADERS of 3 bytes that end stream 5 (with the reserved bit set), then half a frame.
        let wire = [0, 0, 3, 1, 0x5, 0x80, 0, 0, 5, 7, 8, 9, 0, 0];
        let (mut from, mut to) = (&wire[..], Vec::new());
        let frame = now(Frame::read(&mut from)).expect("read").expect("a frame");
        assert_eq!((frame.kind(), frame.stream(), frame.length(), frame.ends_stream()), (HEADERS, 5, 3, true));
        now(frame.write(&mut to)).expect("written");
        assert_eq!(to, wire[..12]);
        assert!(now(Frame::read(&mut from)).is_err(), "half a frame is an error");
        assert_eq!(now(Frame::read(&mut &wire[..0])).expect("read"), None);
    }

    #[test]
    fn a_ping_knows_its_answer() {
        let ping = Frame::ping(*b"theproxy");
        assert!(!ping.answers_ping(*b"theproxy"));
        let mut answer = Frame::ping(*b"theproxy");
        answer.bytes[4] = ACK;
        assert!(answer.answers_ping(*b"theproxy") && !answer.answers_ping(*b"somebody"));
    }
}
