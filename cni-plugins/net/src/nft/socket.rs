//! The nfnetlink socket: batches out, listings in.

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_ERROR};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::attribute::Attributes;
use super::listing::{Listed, elements, find, text};
use super::{Batch, Family};
use crate::NetError;
use crate::socket::{Channel, ack, frame, malformed};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const BATCH_GENID: u16 = 1;

const GETTABLE: u16 = 1;
const GETCHAIN: u16 = 4;
const GETSETELEM: u16 = 13;
const GETGEN: u16 = 16;

/// The kernel's private errno for "the generation that you named is over"; it is not in any C header.
const ERESTART: i32 = 85;

/// How often a decision is taken again because the rule set changed under it.
const ATTEMPTS: usize = 100;

/// A state of the whole rule set of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u32);

/// An nf_tables socket in one network namespace.
#[derive(Debug)]
pub struct Nft {
    channel: Channel,
}

impl Nft {
    /// Opens a socket in the calling thread's network namespace, in which it stays.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open() -> Result<Self, NetError> {
        Ok(Self { channel: Channel::open(NETLINK_NETFILTER)? })
    }

    /// Carries out a batch, all of it or nothing.
    ///
    /// # Errors
    /// The first refusal, with the command it is about.
    pub fn apply(&mut self, batch: &Batch) -> Result<(), NetError> {
        self.send(batch, None)
    }

    /// Looks, decides, and carries the decision out only if nothing changed in between; else looks again. `decide`
    /// answers with the batch (`None`: nothing is to be done) and with what the caller wants to know of it.
    ///
    /// # Errors
    /// What `decide` answers, the kernel's refusal, or that the rule set never stood still.
    pub fn decide<T>(
        &mut self,
        mut decide: impl FnMut(&mut Self) -> Result<(Option<Batch>, T), NetError>,
    ) -> Result<T, NetError> {
        for _ in 0..ATTEMPTS {
            let generation = self.generation()?;
            let (batch, outcome) = decide(self)?;
            let Some(batch) = batch.filter(|batch| !batch.commands.is_empty()) else { return Ok(outcome) };
            match self.send(&batch, Some(generation)) {
                Ok(()) => return Ok(outcome),
                Err(error) if error.errno() == Some(ERESTART) => {}
                Err(error) => return Err(error),
            }
        }
        Err(NetError::Interrupted { operation: "nft".to_owned() })
    }

    /// The state that the rule set is in now.
    ///
    /// # Errors
    /// When the kernel can't be asked.
    pub fn generation(&mut self) -> Result<Generation, NetError> {
        let answers = self.ask("nft generation", GETGEN, Family::Inet, &[], false)?;
        let id = answers.iter().find_map(|payload| find(payload.get(4..)?, 1)?.try_into().ok());
        id.map(|id| Generation(u32::from_be_bytes(id))).ok_or_else(|| malformed("nft generation", "it has no number"))
    }

    /// Whether a table exists.
    ///
    /// # Errors
    /// When the kernel can't be asked.
    pub fn has_table(&mut self, family: Family, table: &str) -> Result<bool, NetError> {
        let attributes = Attributes::default().text(1, table).into_bytes();
        match self.ask(&format!("nft list table {table}"), GETTABLE, family, &attributes, false) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The names of a table's chains; none when there is no such table.
    ///
    /// # Errors
    /// When the kernel can't be asked.
    pub fn chains(&mut self, family: Family, table: &str) -> Result<Vec<String>, NetError> {
        let answers = self.ask(&format!("nft list chains of {table}"), GETCHAIN, family, &[], true)?;
        let names = answers.iter().filter_map(|payload| {
            let attributes = payload.get(4..)?;
            let belongs = text(&find(attributes, 1)?)? == table;
            if belongs { text(&find(attributes, 3)?) } else { None }
        });
        Ok(names.collect())
    }

    /// The elements of a set; none when there is no such set or table.
    ///
    /// # Errors
    /// When the kernel can't be asked.
    pub fn elements(&mut self, family: Family, table: &str, set: &str) -> Result<Vec<Listed>, NetError> {
        let attributes = Attributes::default().text(1, table).text(2, set).into_bytes();
        match self.ask(&format!("nft list set {table} {set}"), GETSETELEM, family, &attributes, true) {
            Ok(answers) => Ok(answers.iter().flat_map(|payload| elements(payload)).collect()),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Asks, and returns the payloads of the answers.
    fn ask(
        &mut self,
        operation: &str,
        kind: u16,
        family: Family,
        attributes: &[u8],
        dump: bool,
    ) -> Result<Vec<Vec<u8>>, NetError> {
        // A listing that others changed meanwhile is harmless: whoever decides on it names the generation.
        let sequence = self.channel.sequences(1).start;
        let mut buffer = Vec::new();
        let flags = if dump { NLM_F_REQUEST | NLM_F_DUMP } else { NLM_F_REQUEST };
        frame(&mut buffer, SUBSYSTEM << 8 | kind, flags, sequence, &with_header(family.number(), 0, attributes));
        self.channel.send(&buffer)?;
        if dump {
            let answers = self.channel.collect(operation, sequence)?;
            let Some(answers) = answers else { return self.ask(operation, kind, family, attributes, dump) };
            return Ok(answers.into_iter().map(|answer| answer.payload).collect());
        }
        loop {
            for answer in self.channel.receive(operation)?.into_iter().filter(|answer| answer.sequence == sequence) {
                if answer.kind == NLMSG_ERROR {
                    ack(operation, &answer)?.check(operation)?;
                } else {
                    return Ok(vec![answer.payload]);
                }
            }
        }
    }

    fn send(&mut self, batch: &Batch, generation: Option<Generation>) -> Result<(), NetError> {
        let count = batch.commands.len();
        let Some(messages) = u32::try_from(count + 2).ok().filter(|_| count > 0) else { return Ok(()) };
        let sequences = self.channel.sequences(messages);
        self.channel.send(&encode(batch, generation, sequences.start))?;
        let last = sequences.end - 2;
        let place = format!("{} {}", batch.family.as_str(), batch.table);
        let mut outcome = Ok(());
        loop {
            for answer in self.channel.receive(&format!("nft batch of {place}"))? {
                if answer.kind != NLMSG_ERROR || !sequences.contains(&answer.sequence) {
                    continue;
                }
                let number = (answer.sequence - sequences.start) as usize;
                // The batch as a whole is answered by its first message, each command by its own.
                let command = number.checked_sub(1).and_then(|index| batch.commands.get(index));
                let operation = match command {
                    Some(command) => format!("nft {place}: {} (command {number} of {count})", command.describe()),
                    None => format!("nft {place}: commit"),
                };
                let told = ack(&operation, &answer)?;
                let failed_whole = command.is_none() && told.errno != 0;
                outcome = outcome.and(told.check(&operation));
                if answer.sequence == last || failed_whole {
                    return outcome;
                }
            }
        }
    }
}

/// The bytes of a batch. Only the last command asks to be acknowledged; the kernel speaks up for those that fail.
pub(super) fn encode(batch: &Batch, generation: Option<Generation>, first: u32) -> Vec<u8> {
    let mut buffer = Vec::new();
    let begin = Attributes::default()
        .optional(generation, |attributes, generation| attributes.number(BATCH_GENID, generation.0))
        .into_bytes();
    frame(&mut buffer, BATCH_BEGIN, NLM_F_REQUEST, first, &with_header(0, SUBSYSTEM, &begin));
    let mut sequence = first + 1;
    for (index, command) in batch.commands.iter().enumerate() {
        let (kind, flags, attributes) = command.encode(&batch.table, sequence - first);
        let wants = if index + 1 == batch.commands.len() { NLM_F_ACK } else { 0 };
        let payload = with_header(batch.family.number(), 0, &attributes);
        frame(&mut buffer, SUBSYSTEM << 8 | kind, flags | wants | NLM_F_REQUEST, sequence, &payload);
        sequence += 1;
    }
    frame(&mut buffer, BATCH_END, NLM_F_REQUEST, sequence, &with_header(0, SUBSYSTEM, &[]));
    buffer
}

/// `struct nfgenmsg`: family, version, resource.
fn with_header(family: u8, resource: u16, attributes: &[u8]) -> Vec<u8> {
    let mut payload = vec![family, 0];
    payload.extend_from_slice(&resource.to_be_bytes());
    payload.extend_from_slice(attributes);
    payload
}
