//! Tables of ours in nf_tables, whose elements belong to attachments.
//!
//! Each element carries its attachment's identity as a comment. The decisions here are pure: from what is in the table
//! and what is to leave or join follows one batch. A table appears with its first element and goes with its last; a
//! chain of a verdict map appears and goes with the elements that lead to it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};

use berth_cni::CniError;
use berth_net::NetError;
use berth_net::nft::{
    Base, Batch, Command, Data, Element, Expression, Family, Listed, MetaKey, Nft, Operator, Register, Verdict,
};
use ipnet::IpNet;

/// A table of ours.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) family: Family,
    pub(crate) name: &'static str,
    /// The sets whose elements belong to attachments.
    pub(crate) sets: &'static [&'static str],
    /// What makes the table; repeating it changes nothing.
    pub(crate) setup: fn(Family) -> Vec<Command>,
}

/// An element that is in the table.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) set: &'static str,
    pub(crate) listed: Listed,
}

/// An element that is to be in the table.
#[derive(Clone, Debug)]
pub(crate) struct Joining {
    pub(crate) set: &'static str,
    pub(crate) element: Element,
    /// What makes the chain that the element leads to; repeating it changes nothing.
    pub(crate) chain: Vec<Command>,
}

/// The socket of the last change, and the namespace that it belongs to.
///
/// It is kept because closing one is slow: the kernel then waits until all that was deleted is past its RCU grace period,
/// 10 ms and more. Its lock also makes looking and changing take turns within this process; between processes the rule
/// set's generation sees to that.
static KEPT: Mutex<Option<Kept>> = Mutex::new(None);

#[derive(Debug)]
struct Kept {
    nft: Nft,
    namespace: (u64, u64),
}

/// Looks at the rules, decides, and carries the decision out, in a single step as far as anybody can see.
pub(crate) fn decide<T>(work: impl FnMut(&mut Nft) -> Result<(Option<Batch>, T), NetError>) -> Result<T, CniError> {
    let failed = |error| CniError::io("nf_tables", error);
    let here = fs::metadata("/proc/thread-self/ns/net").map_err(|error| failed(error.into()))?;
    let namespace = (here.dev(), here.ino());
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let nft = match kept.take() {
        Some(kept) if kept.namespace == namespace => kept.nft,
        _ => Nft::open().map_err(failed)?,
    };
    let Kept { nft, .. } = kept.insert(Kept { nft, namespace });
    let outcome = berth_effect::run("rules-change", || nft.decide(work));
    if outcome.is_err() {
        // Answers to what failed may still be on their way in.
        *kept = None;
    }
    outcome.map_err(failed)
}

impl Held {
    pub(crate) fn comment(&self) -> &str {
        self.listed.comment.as_deref().unwrap_or_default()
    }
}

impl Table {
    pub(crate) fn held(&self, nft: &mut Nft) -> Result<Vec<Held>, NetError> {
        let mut held = Vec::new();
        for set in self.sets {
            let listed = nft.elements(self.family, self.name, set)?;
            held.extend(listed.into_iter().map(|listed| Held { set, listed }));
        }
        Ok(held)
    }

    /// The batch after which those that leave are gone and those that join are there. Whoever holds a joining element's
    /// key leaves too. `None`: nothing changes.
    pub(crate) fn plan(&self, held: &[Held], leaves: impl Fn(&Held) -> bool, joining: &[Joining]) -> Option<Batch> {
        let displaced =
            |held: &Held| joining.iter().any(|new| new.set == held.set && new.element.key == held.listed.key);
        let (gone, stays): (Vec<_>, Vec<_>) = held.iter().partition(|held| leaves(held) || displaced(held));
        if gone.is_empty() && joining.is_empty() {
            return None;
        }
        if stays.is_empty() && joining.is_empty() {
            return Some(self.batch(vec![Command::DeleteTable]));
        }
        let mut commands = if held.is_empty() { (self.setup)(self.family) } else { Vec::new() };
        for set in self.sets {
            let keys: Vec<_> =
                gone.iter().filter(|held| held.set == *set).map(|held| held.listed.key.clone()).collect();
            if !keys.is_empty() {
                commands.push(Command::DeleteElements { set: (*set).to_owned(), keys });
            }
        }
        let before: BTreeSet<_> = held.iter().filter_map(|held| held.listed.chain.as_deref()).collect();
        let mut after: BTreeSet<_> = stays.iter().filter_map(|held| held.listed.chain.as_deref()).collect();
        for new in joining {
            if let Some(chain) = leads_to(&new.element)
                && after.insert(chain)
                && !before.contains(chain)
            {
                commands.extend(new.chain.iter().cloned());
            }
        }
        for set in self.sets {
            let elements: Vec<_> =
                joining.iter().filter(|new| new.set == *set).map(|new| new.element.clone()).collect();
            if !elements.is_empty() {
                commands.push(Command::AddElements { set: (*set).to_owned(), elements });
            }
        }
        commands.extend(before.difference(&after).map(|chain| Command::DeleteChain((*chain).to_owned())));
        Some(self.batch(commands))
    }

    fn batch(&self, commands: Vec<Command>) -> Batch {
        Batch { family: self.family, table: self.name.to_owned(), commands }
    }
}

fn leads_to(element: &Element) -> Option<&str> {
    match &element.data {
        Some(Data::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain))) => Some(chain),
        _ => None,
    }
}

/// The name of the chain that is about a network's addresses.
pub(crate) fn chain_of(net: IpNet) -> String {
    format!("net-{}", net.trunc()).replace(':', "_")
}

/// The address as a key.
pub(crate) fn key_of(address: std::net::IpAddr) -> Vec<u8> {
    match address {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Which address of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Source,
    Destination,
}

/// Loads an address from the packet.
pub(crate) fn load_address(end: End, v4: bool, to: Register) -> Expression {
    let (offset, length) = match (end, v4) {
        (End::Source, true) => (12, 4),
        (End::Destination, true) => (16, 4),
        (End::Source, false) => (8, 16),
        (End::Destination, false) => (24, 16),
    };
    Expression::Payload { base: Base::Network, offset, length, to }
}

/// Goes on only for packets whose address is in the network.
pub(crate) fn is_in(end: End, net: IpNet) -> Vec<Expression> {
    let register = Register(0);
    let mask = key_of(net.netmask());
    let xor = vec![0; mask.len()];
    vec![
        load_address(end, net.addr().is_ipv4(), register),
        Expression::Bitwise { from: register, to: register, mask, xor },
        Expression::Compare { register, operator: Operator::Equal, value: key_of(net.network()) },
    ]
}

/// Goes on only for packets of the family; needed before looking into packets of an `inet` table.
pub(crate) fn is_family(v4: bool) -> Vec<Expression> {
    let register = Register(0);
    let value = vec![if v4 { 2 } else { 10 }];
    vec![
        Expression::Meta { key: MetaKey::NetworkProtocol, to: register },
        Expression::Compare { register, operator: Operator::Equal, value },
    ]
}

#[cfg(test)]
mod tests;
