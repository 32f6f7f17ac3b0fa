//! The rtnetlink socket.

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NLMSG_ERROR};
use netlink_packet_core::{NetlinkSerializable, ParseableParametrized};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::NetError;
use crate::socket::{Channel, ack, frame, malformed};

/// How often a table that changes while it is read is read again.
const DUMP_ATTEMPTS: usize = 10;

/// An rtnetlink socket in one network namespace.
#[derive(Debug)]
pub struct Route {
    channel: Channel,
}

/// One change, as plain data: what [`Route::change`] carries out.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// For people, and for errors: "link add veth0".
    pub(crate) operation: String,
    pub(crate) message: RouteNetlinkMessage,
    pub(crate) flags: u16,
}

impl Change {
    /// Something new, which must not exist yet.
    pub(crate) fn create(operation: String, message: RouteNetlinkMessage) -> Self {
        Self { operation, message, flags: NLM_F_CREATE | NLM_F_EXCL }
    }

    /// Something new, in place of what is there under the same key.
    pub(crate) fn replace(operation: String, message: RouteNetlinkMessage) -> Self {
        Self { operation, message, flags: NLM_F_CREATE | NLM_F_REPLACE }
    }

    /// A change of something that exists, or its end.
    pub(crate) fn modify(operation: String, message: RouteNetlinkMessage) -> Self {
        Self { operation, message, flags: 0 }
    }
}

impl Route {
    /// Opens a socket in the calling thread's network namespace, in which it stays.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open() -> Result<Self, NetError> {
        Ok(Self { channel: Channel::open(NETLINK_ROUTE)? })
    }

    /// Carries out changes in one system call, in order. They are not atomic: after a failed one the kernel goes on with
    /// the next, and the first error is returned.
    ///
    /// # Errors
    /// The first refusal.
    pub fn change(&mut self, changes: &[Change]) -> Result<(), NetError> {
        let Ok(count) = u32::try_from(changes.len()) else { return Ok(()) };
        let sequences = self.channel.sequences(count);
        let mut buffer = Vec::new();
        for (change, sequence) in changes.iter().zip(sequences.clone()) {
            encode(&mut buffer, &change.message, change.flags | NLM_F_REQUEST | NLM_F_ACK, sequence);
        }
        if buffer.is_empty() {
            return Ok(());
        }
        self.channel.send(&buffer)?;
        let mut outcome = Ok(());
        let mut expected = sequences.start;
        while expected < sequences.end {
            let operation = &changes[(expected - sequences.start) as usize].operation;
            for answer in self.channel.receive(operation)? {
                if answer.sequence == expected && answer.kind == NLMSG_ERROR {
                    let operation = &changes[(expected - sequences.start) as usize].operation;
                    outcome = outcome.and(ack(operation, &answer)?.check(operation));
                    expected += 1;
                }
            }
        }
        outcome
    }

    /// Asks for one object.
    pub(crate) fn get(
        &mut self,
        operation: &str,
        message: &RouteNetlinkMessage,
    ) -> Result<RouteNetlinkMessage, NetError> {
        let sequence = self.channel.sequences(1).start;
        let mut buffer = Vec::new();
        encode(&mut buffer, message, NLM_F_REQUEST, sequence);
        self.channel.send(&buffer)?;
        loop {
            for answer in self.channel.receive(operation)?.into_iter().filter(|answer| answer.sequence == sequence) {
                if answer.kind == NLMSG_ERROR {
                    ack(operation, &answer)?.check(operation)?;
                } else {
                    return decode(operation, answer.kind, &answer.payload);
                }
            }
        }
    }

    /// Asks for all objects of a kind that the request's filter lets through.
    pub(crate) fn dump(
        &mut self,
        operation: &str,
        message: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetError> {
        for _ in 0..DUMP_ATTEMPTS {
            let sequence = self.channel.sequences(1).start;
            let mut buffer = Vec::new();
            encode(&mut buffer, message, NLM_F_REQUEST | NLM_F_DUMP, sequence);
            self.channel.send(&buffer)?;
            if let Some(answers) = self.channel.collect(operation, sequence)? {
                return answers.iter().map(|answer| decode(operation, answer.kind, &answer.payload)).collect();
            }
        }
        Err(NetError::Interrupted { operation: operation.to_owned() })
    }
}

fn encode(buffer: &mut Vec<u8>, message: &RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut payload = vec![0; NetlinkSerializable::buffer_len(message)];
    message.serialize(&mut payload);
    frame(buffer, message.message_type(), flags, sequence, &payload);
}

fn decode(operation: &str, kind: u16, payload: &[u8]) -> Result<RouteNetlinkMessage, NetError> {
    RouteNetlinkMessage::parse_with_param(payload, kind).map_err(|error| malformed(operation, error))
}
