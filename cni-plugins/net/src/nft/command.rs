//! What a batch consists of.

use super::Expression;
use super::attribute::{Attributes, comment};
use super::expression::verdict;

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    Ip,
    Ip6,
}

/// Where a base chain is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookPoint {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// What makes a chain a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// "filter" or "nat".
    pub kind: &'static str,
    pub point: HookPoint,
    /// Lower is earlier: -100 for destination NAT, 0 for filters, 100 for source NAT.
    pub priority: i32,
}

/// A chain; base chains accept what no rule decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub name: String,
    pub hook: Option<Hook>,
}

/// The types of keys and data, as `nft` numbers them for its listings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Ipv4Addr,
    Ipv6Addr,
    InetProto,
    InetService,
    /// Name of a link, padded to 16 bytes.
    Ifname,
}

/// What an element of a map holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    Value(Vec<u8>),
    Verdict(Verdict),
}

/// A set, or a map when it has data. Keys of more than one type are concatenated, each padded to 4 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    pub name: String,
    pub key: Vec<Type>,
    pub data: Option<MapData>,
}

/// What a map maps to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapData {
    Values(Vec<Type>),
    Verdicts,
}

/// One element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    pub key: Vec<u8>,
    pub data: Option<Data>,
    /// Whom it belongs to; `nft` shows it as a comment.
    pub comment: Option<String>,
}

/// Where a packet goes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

/// A rule at the end of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub chain: String,
    pub expressions: Vec<Expression>,
    pub comment: Option<String>,
}

/// One step of a batch, in the batch's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Makes the table; `exclusive`: it must not exist.
    AddTable {
        exclusive: bool,
    },
    /// Deletes the table with everything in it.
    DeleteTable,
    AddChain(Chain),
    /// Deletes an empty chain that nothing refers to.
    DeleteChain(String),
    /// Deletes the rules of a chain.
    FlushChain(String),
    AddSet(Set),
    /// Adds elements; each key must be free.
    AddElements {
        set: String,
        elements: Vec<Element>,
    },
    /// Deletes elements by key; each must be there.
    DeleteElements {
        set: String,
        keys: Vec<Vec<u8>>,
    },
    AddRule(Rule),
}

/// Steps that the kernel takes all or none of, in one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub family: Family,
    pub table: String,
    pub commands: Vec<Command>,
}

const NLM_F_CREATE: u16 = 0x400;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_APPEND: u16 = 0x800;

const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;

/// `NFT_SET_MAP`.
const SET_IS_MAP: u32 = 0x8;
/// `NFT_DATA_VERDICT`, the data type of verdict maps.
const DATA_VERDICT: u32 = 0xffff_ff00;
const LIST_ELEM: u16 = 1;
/// `BYTEORDER_HOST_ENDIAN` of `nft`.
const HOST_ENDIAN: u32 = 1;

impl Family {
    /// `NFPROTO_*`.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Ip6 => 10,
        }
    }

    /// As `nft` writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
        }
    }
}

impl HookPoint {
    fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
        }
    }
}

impl Type {
    fn number(self) -> u32 {
        match self {
            Self::Ipv4Addr => 7,
            Self::Ipv6Addr => 8,
            Self::InetProto => 12,
            Self::InetService => 13,
            Self::Ifname => 41,
        }
    }

    /// Bytes, unpadded.
    pub(super) fn length(self) -> usize {
        match self {
            Self::Ipv4Addr => 4,
            Self::Ipv6Addr | Self::Ifname => 16,
            Self::InetProto => 1,
            Self::InetService => 2,
        }
    }
}

/// The number by which `nft` knows a concatenation: 6 bits per type.
fn concatenation(types: &[Type]) -> u32 {
    types.iter().fold(0, |number, part| number << 6 | part.number())
}

/// Bytes of a key or value: alone as it is, concatenated with padding.
fn length(types: &[Type]) -> u32 {
    let length = match types {
        [single] => single.length(),
        parts => parts.iter().map(|part| part.length().next_multiple_of(4)).sum(),
    };
    u32::try_from(length).unwrap_or(u32::MAX)
}

impl Command {
    /// For people, and for errors.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::AddTable { .. } => "add table".to_owned(),
            Self::DeleteTable => "delete table".to_owned(),
            Self::AddChain(chain) => format!("add chain {}", chain.name),
            Self::DeleteChain(chain) => format!("delete chain {chain}"),
            Self::FlushChain(chain) => format!("flush chain {chain}"),
            Self::AddSet(set) => format!("add set {}", set.name),
            Self::AddElements { set, .. } => format!("add elements of {set}"),
            Self::DeleteElements { set, .. } => format!("delete elements of {set}"),
            Self::AddRule(rule) => format!("add rule of {}", rule.chain),
        }
    }

    /// Message type, flags and attributes; `id` tells new sets of one batch apart.
    pub(super) fn encode(&self, table: &str, id: u32) -> (u16, u16, Vec<u8>) {
        let attributes = Attributes::default();
        let (kind, flags, attributes) = match self {
            Self::AddTable { exclusive } => {
                let flags = if *exclusive { NLM_F_CREATE | NLM_F_EXCL } else { NLM_F_CREATE };
                (NEWTABLE, flags, attributes.text(1, table))
            }
            Self::DeleteTable => (DELTABLE, 0, attributes.text(1, table)),
            Self::AddChain(chain) => (NEWCHAIN, NLM_F_CREATE, chain.encode(attributes.text(1, table))),
            Self::DeleteChain(name) => (DELCHAIN, 0, attributes.text(1, table).text(3, name)),
            Self::FlushChain(name) => (DELRULE, 0, attributes.text(1, table).text(2, name)),
            Self::AddSet(set) => (NEWSET, NLM_F_CREATE, set.encode(attributes.text(1, table), id)),
            Self::AddElements { set, elements } => {
                let list = elements
                    .iter()
                    .fold(Attributes::default(), |list, element| list.nested(LIST_ELEM, &element.encode()));
                let attributes = attributes.text(1, table).text(2, set).nested(3, &list);
                (NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL, attributes)
            }
            Self::DeleteElements { set, keys } => {
                let list = keys.iter().fold(Attributes::default(), |list, key| {
                    list.nested(LIST_ELEM, &Attributes::default().nested(1, &value(key)))
                });
                (DELSETELEM, 0, attributes.text(1, table).text(2, set).nested(3, &list))
            }
            Self::AddRule(rule) => (NEWRULE, NLM_F_CREATE | NLM_F_APPEND, rule.encode(attributes.text(1, table))),
        };
        (kind, flags, attributes.into_bytes())
    }
}

impl Chain {
    fn encode(&self, attributes: Attributes) -> Attributes {
        attributes.text(3, &self.name).optional(self.hook, |attributes, hook| {
            let place = Attributes::default().number(1, hook.point.number()).bytes(2, &hook.priority.to_be_bytes());
            const ACCEPT: u32 = 1;
            attributes.nested(4, &place).number(5, ACCEPT).text(7, hook.kind)
        })
    }
}

impl Set {
    fn encode(&self, attributes: Attributes, id: u32) -> Attributes {
        let attributes = attributes
            .text(2, &self.name)
            .number(3, if self.data.is_some() { SET_IS_MAP } else { 0 })
            .number(4, concatenation(&self.key))
            .number(5, length(&self.key))
            .number(10, id);
        // `nft` takes keys for big-endian unless it is told otherwise, in user data of its own form.
        let attributes = if self.key == [Type::Ifname] {
            let [a, b, c, d] = HOST_ENDIAN.to_ne_bytes();
            attributes.bytes(13, &[0, 4, a, b, c, d])
        } else {
            attributes
        };
        match &self.data {
            None => attributes,
            Some(MapData::Verdicts) => attributes.number(6, DATA_VERDICT),
            Some(MapData::Values(types)) => attributes.number(6, concatenation(types)).number(7, length(types)),
        }
    }
}

impl Element {
    fn encode(&self) -> Attributes {
        let attributes = Attributes::default().nested(1, &value(&self.key));
        let attributes = match &self.data {
            None => attributes,
            Some(Data::Value(bytes)) => attributes.nested(2, &value(bytes)),
            Some(Data::Verdict(decided)) => attributes.nested(2, &verdict(decided)),
        };
        attributes.optional(self.comment.as_deref(), |attributes, text| attributes.bytes(6, &comment(text)))
    }
}

impl Rule {
    fn encode(&self, attributes: Attributes) -> Attributes {
        let list = self.expressions.iter().fold(Attributes::default(), |list, expression| {
            let (name, data) = expression.encode();
            list.nested(LIST_ELEM, &Attributes::default().text(1, name).nested(2, &data))
        });
        attributes
            .text(2, &self.chain)
            .nested(4, &list)
            .optional(self.comment.as_deref(), |attributes, text| attributes.bytes(7, &comment(text)))
    }
}

fn value(bytes: &[u8]) -> Attributes {
    Attributes::default().bytes(1, bytes)
}
