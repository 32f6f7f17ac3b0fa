//! One netlink socket: numbered requests out, answers in.

use std::io;
use std::ops::Range;

use netlink_packet_core::{NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NlasIterator};
use netlink_sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::NetError;

/// The kernel answers while it handles the request; it only takes long when others hold its locks.
const TIMEOUT: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// Larger than any single answer: the kernel caps its dump buffers at 32 KiB.
const RECEIVE: usize = 64 << 10;

const HEADER: usize = 16;

/// `NLM_F_ACK_TLVS`: attributes follow an acknowledgement.
const ACK_TLVS: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`: the kernel's explanation.
const ATTR_MESSAGE: u16 = 1;

#[derive(Debug)]
pub(crate) struct Channel {
    socket: Socket,
    sequence: u32,
}

/// One message of an answer, copied out of its datagram.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: Vec<u8>,
}

/// What an acknowledgement says.
#[derive(Debug)]
pub(crate) struct Ack {
    /// 0 for success, else an errno.
    pub(crate) errno: i32,
    pub(crate) message: Option<String>,
}

impl Channel {
    pub(crate) fn open(protocol: isize) -> Result<Self, NetError> {
        let mut socket = Socket::new(protocol)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Only the header of a refused request comes back, followed by the kernel's explanation.
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        // Requests that the kernel would half understand are refused, and dumps are filtered as asked.
        socket.set_netlink_get_strict_chk(true)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Reserves `count` sequence numbers.
    pub(crate) fn sequences(&mut self, count: u32) -> Range<u32> {
        // 0 is what the kernel uses for messages that nobody asked for.
        if self.sequence > u32::MAX - count - 1 {
            self.sequence = 0;
        }
        let first = self.sequence + 1;
        self.sequence += count;
        first..first + count
    }

    pub(crate) fn send(&self, messages: &[u8]) -> Result<(), NetError> {
        loop {
            match self.socket.send(messages, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next datagram's messages.
    pub(crate) fn receive(&self, operation: &str) -> Result<Vec<Answer>, NetError> {
        loop {
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&TIMEOUT)) {
                Ok(0) => {
                    let seconds = TIMEOUT.tv_sec.unsigned_abs();
                    return Err(NetError::Timeout { operation: operation.to_owned(), seconds });
                }
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(NetError::Socket(error.into())),
            }
        }
        let mut datagram = Vec::with_capacity(RECEIVE);
        let length = self.socket.recv(&mut datagram, libc::MSG_TRUNC)?;
        if length > datagram.len() {
            return Err(malformed(operation, "a datagram is larger than the kernel's buffers"));
        }
        split(operation, &datagram)
    }

    /// Collects a dump up to its end. `None`: the table changed meanwhile and must be read again.
    pub(crate) fn collect(&self, operation: &str, sequence: u32) -> Result<Option<Vec<Answer>>, NetError> {
        let mut collected = Vec::new();
        let mut whole = true;
        loop {
            for answer in self.receive(operation)?.into_iter().filter(|answer| answer.sequence == sequence) {
                whole &= answer.flags & NLM_F_DUMP_INTR == 0;
                match answer.kind {
                    NLMSG_DONE => {
                        ack(operation, &answer)?.check(operation)?;
                        return Ok(whole.then_some(collected));
                    }
                    NLMSG_ERROR => {
                        ack(operation, &answer)?.check(operation)?;
                        return Ok(whole.then_some(collected));
                    }
                    _ => collected.push(answer),
                }
            }
        }
    }
}

impl Ack {
    pub(crate) fn check(self, operation: &str) -> Result<(), NetError> {
        if self.errno == 0 {
            return Ok(());
        }
        Err(NetError::Refused {
            operation: operation.to_owned(),
            source: io::Error::from_raw_os_error(self.errno),
            message: self.message,
        })
    }
}

/// Reads an acknowledgement, or the end of a dump, which has the same beginning.
pub(crate) fn ack(operation: &str, answer: &Answer) -> Result<Ack, NetError> {
    let code = answer.payload.first_chunk().map(|code| i32::from_ne_bytes(*code));
    let errno = code.ok_or_else(|| malformed(operation, "an acknowledgement is cut off"))?.saturating_abs();
    // The code, then (not at the end of a dump) the header of the request, then attributes.
    let attributes = if answer.kind == NLMSG_ERROR { 4 + HEADER } else { 4 };
    let mut message = None;
    if answer.flags & ACK_TLVS != 0
        && let Some(attributes) = answer.payload.get(attributes..)
    {
        for attribute in NlasIterator::new(attributes).flatten().filter(|attribute| attribute.kind() == ATTR_MESSAGE) {
            let text = attribute.value().split(|byte| *byte == 0).next().unwrap_or_default();
            message = Some(String::from_utf8_lossy(text).into_owned());
        }
    }
    Ok(Ack { errno, message })
}

/// Writes a message's header in front of its payload; both padded to 4 bytes.
pub(crate) fn frame(buffer: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, payload: &[u8]) {
    let length = u32::try_from(HEADER + payload.len()).unwrap_or(u32::MAX);
    buffer.extend_from_slice(&length.to_ne_bytes());
    buffer.extend_from_slice(&kind.to_ne_bytes());
    buffer.extend_from_slice(&flags.to_ne_bytes());
    buffer.extend_from_slice(&sequence.to_ne_bytes());
    buffer.extend_from_slice(&0u32.to_ne_bytes());
    buffer.extend_from_slice(payload);
    buffer.resize(buffer.len().next_multiple_of(4), 0);
}

fn split(operation: &str, datagram: &[u8]) -> Result<Vec<Answer>, NetError> {
    let mut answers = Vec::new();
    let mut rest = datagram;
    while let Some(header) = rest.first_chunk::<HEADER>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let Some(payload) = rest.get(HEADER..length) else {
            return Err(malformed(operation, "a message is longer than its datagram"));
        };
        answers.push(Answer {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            payload: payload.to_vec(),
        });
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(answers)
}

pub(crate) fn malformed(operation: &str, reason: impl std::fmt::Display) -> NetError {
    NetError::Malformed { operation: operation.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_framed_is_split_again() {
        let mut buffer = Vec::new();
        frame(&mut buffer, 20, 5, 7, b"abcde");
        frame(&mut buffer, 21, 0, 8, b"");
        assert_eq!(buffer.len(), 16 + 8 + 16);
        let answers = split("test", &buffer).expect("whole");
        assert_eq!((answers[0].kind, answers[0].flags, answers[0].sequence), (20, 5, 7));
        assert_eq!((answers[0].payload.as_slice(), answers.len()), (&b"abcde"[..], 2));
        assert!(split("test", &buffer[..20]).is_err(), "a message that is cut off is noticed");
    }

    #[test]
    fn the_kernels_words_are_read() {
        let mut payload = (-libc::EINVAL).to_ne_bytes().to_vec();
        payload.extend_from_slice(&[0; HEADER]);
        payload.extend_from_slice(&[9, 0, 1, 0]);
        payload.extend_from_slice(b"why!\0\0\0\0");
        let answer = Answer { kind: NLMSG_ERROR, flags: ACK_TLVS, sequence: 1, payload };
        let error = ack("link add", &answer).expect("read").check("link add").expect_err("refused");
        assert_eq!(error.to_string(), "link add: Invalid argument (os error 22) (why!)");
        assert_eq!(error.errno(), Some(libc::EINVAL));
    }
}
