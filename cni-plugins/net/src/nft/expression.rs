//! The expressions that rules consist of: each loads into registers, compares them, or acts on them.

use super::attribute::Attributes;
use super::{Family, Verdict};

/// One of the sixteen 4-byte registers. A value longer than 4 bytes goes on in the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(pub u8);

/// Facts about a packet that are not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaKey {
    Mark,
    /// Name of the incoming link, 16 bytes.
    InputName,
    /// `NFPROTO_*`, 1 byte.
    NetworkProtocol,
    /// 1 byte.
    TransportProtocol,
}

/// Where in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    Network,
    Transport,
}

/// Facts about the connection, 4 bytes in the host's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtKey {
    /// [`Expression::STATE_ESTABLISHED`] and its kind.
    State,
    Status,
}

/// How a register is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Equal,
    NotEqual,
}

/// One expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    Meta {
        key: MetaKey,
        to: Register,
    },
    /// Sets the packet's mark from a register.
    SetMark {
        from: Register,
    },
    Payload {
        base: Base,
        offset: u32,
        length: u32,
        to: Register,
    },
    Ct {
        key: CtKey,
        to: Register,
    },
    /// The type of the packet's destination address (`RTN_*`), 4 bytes in the host's order.
    DestinationType {
        to: Register,
    },
    /// Goes on only when the comparison holds.
    Compare {
        register: Register,
        operator: Operator,
        value: Vec<u8>,
    },
    /// `to = from & mask ^ xor`.
    Bitwise {
        from: Register,
        to: Register,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    /// Goes on only when the key is in the set; a map's value is loaded.
    Lookup {
        set: String,
        key: Register,
        to: Option<Register>,
    },
    /// Looks a key up in a verdict map and does as it says.
    LookupVerdict {
        map: String,
        key: Register,
    },
    Verdict(Verdict),
    Masquerade,
    /// Rewrites the destination to the address and port in registers.
    Dnat {
        family: Family,
        address: Register,
        port: Register,
    },
}

impl Register {
    /// `NFT_REG32_00` and following.
    fn number(self) -> u32 {
        8 + u32::from(self.0)
    }
}

impl Expression {
    /// `RTN_LOCAL`: an address of this host.
    pub const TYPE_LOCAL: u32 = 2;
    /// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)`.
    pub const STATE_ESTABLISHED: u32 = 2;
    /// `NF_CT_STATE_BIT(IP_CT_RELATED)`.
    pub const STATE_RELATED: u32 = 4;
    /// `IPS_DST_NAT`.
    pub const STATUS_DNAT: u32 = 0x20;

    /// Name and attributes.
    pub(super) fn encode(&self) -> (&'static str, Attributes) {
        let attributes = Attributes::default();
        match self {
            Self::Meta { key, to } => ("meta", attributes.number(1, to.number()).number(2, key.number())),
            Self::SetMark { from } => ("meta", attributes.number(2, MetaKey::Mark.number()).number(3, from.number())),
            Self::Payload { base, offset, length, to } => (
                "payload",
                attributes.number(1, to.number()).number(2, base.number()).number(3, *offset).number(4, *length),
            ),
            Self::Ct { key, to } => ("ct", attributes.number(1, to.number()).number(2, key.number())),
            Self::DestinationType { to } => {
                const RESULT_ADDRTYPE: u32 = 3;
                const FLAG_DADDR: u32 = 2;
                ("fib", attributes.number(1, to.number()).number(2, RESULT_ADDRTYPE).number(3, FLAG_DADDR))
            }
            Self::Compare { register, operator, value } => {
                let operator = match operator {
                    Operator::Equal => 0,
                    Operator::NotEqual => 1,
                };
                ("cmp", attributes.number(1, register.number()).number(2, operator).nested(3, &data(value)))
            }
            Self::Bitwise { from, to, mask, xor } => {
                let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
                let attributes = attributes.number(1, from.number()).number(2, to.number()).number(3, length);
                ("bitwise", attributes.nested(4, &data(mask)).nested(5, &data(xor)))
            }
            Self::Lookup { set, key, to } => {
                let attributes = attributes.text(1, set).number(2, key.number());
                ("lookup", attributes.optional(*to, |attributes, to| attributes.number(3, to.number())))
            }
            Self::LookupVerdict { map, key } => {
                ("lookup", attributes.text(1, map).number(2, key.number()).number(3, VERDICT_REGISTER))
            }
            Self::Verdict(decided) => {
                ("immediate", attributes.number(1, VERDICT_REGISTER).nested(2, &verdict(decided)))
            }
            Self::Masquerade => ("masq", attributes),
            Self::Dnat { family, address, port } => {
                const DESTINATION: u32 = 1;
                let attributes = attributes.number(1, DESTINATION).number(2, family.number().into());
                ("nat", attributes.number(3, address.number()).number(5, port.number()))
            }
        }
    }
}

/// `NFT_REG_VERDICT`.
const VERDICT_REGISTER: u32 = 0;

impl MetaKey {
    fn number(self) -> u32 {
        match self {
            Self::Mark => 3,
            Self::InputName => 6,
            Self::NetworkProtocol => 15,
            Self::TransportProtocol => 16,
        }
    }
}

impl Base {
    fn number(self) -> u32 {
        match self {
            Self::Network => 1,
            Self::Transport => 2,
        }
    }
}

impl CtKey {
    fn number(self) -> u32 {
        match self {
            Self::State => 0,
            Self::Status => 2,
        }
    }
}

/// A verdict, as data of an expression or of a map's element.
pub(super) fn verdict(verdict: &Verdict) -> Attributes {
    let (code, chain) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
        Verdict::Return => (-5, None),
    };
    let inner = Attributes::default().bytes(1, &i32::to_be_bytes(code));
    Attributes::default().nested(2, &inner.optional(chain, |inner, chain| inner.text(2, chain)))
}

fn data(bytes: &[u8]) -> Attributes {
    Attributes::default().bytes(1, bytes)
}
