//! Masquerading: what pods send out of their network leaves with the host's address.
//!
//! ```text
//! table inet berth_masquerade {
//!   map pods4 { type ipv4_addr : verdict; elements = { 10.88.0.2 comment "pods c1 eth0" : jump net-10.88.0.0/16 } }
//!   map pods6 { type ipv6_addr : verdict }
//!   chain net-10.88.0.0/16 { ip daddr 10.88.0.0/16 return; ip daddr 224.0.0.0/4 return; masquerade }
//!   chain postrouting { type nat hook postrouting priority srcnat; ip saddr vmap @pods4; ip6 saddr vmap @pods6 }
//! }
//! ```
//!
//! One look-up decides, however many pods there are.

use berth_cni::CniError;
use berth_net::nft::{
    Chain, Command, Data, Element, Expression, Family, Hook, HookPoint, MapData, Register, Rule, Set, Type, Verdict,
};
use ipnet::IpNet;

use crate::identity::{Identity, Wanted};
use crate::tables::{End, Joining, Table, chain_of, decide, is_family, is_in, key_of, load_address};

const TABLE: Table =
    Table { family: Family::Inet, name: "berth_masquerade", sets: &["pods4", "pods6"], setup: |_| setup() };

/// Masquerades what an attachment's addresses (each with its subnet's prefix length) send out of their subnets.
pub(crate) fn add(identity: &Identity, addresses: &[IpNet]) -> Result<(), CniError> {
    decide(|nft| {
        let held = TABLE.held(nft)?;
        let joining: Vec<_> = addresses.iter().map(|address| joining(identity, *address)).collect();
        Ok((TABLE.plan(&held, |held| held.comment() == identity.text(), &joining), ()))
    })
}

/// Stops that, for whatever addresses the attachment had.
pub(crate) fn remove(identity: &Identity) -> Result<(), CniError> {
    decide(|nft| Ok((TABLE.plan(&TABLE.held(nft)?, |held| held.comment() == identity.text(), &[]), ())))
}

/// Stops that for the network's attachments that are not wanted any more.
pub(crate) fn gc(wanted: &Wanted) -> Result<(), CniError> {
    decide(|nft| Ok((TABLE.plan(&TABLE.held(nft)?, |held| wanted.is_stale(held.comment()), &[]), ())))
}

/// Whether each of the addresses is masqueraded for the attachment.
pub(crate) fn check(identity: &Identity, addresses: &[IpNet]) -> Result<bool, CniError> {
    let held = decide(|nft| Ok((None, TABLE.held(nft)?)))?;
    Ok(addresses.iter().all(|address| {
        held.iter().any(|held| held.listed.key == key_of(address.addr()) && held.comment() == identity.text())
    }))
}

fn joining(identity: &Identity, address: IpNet) -> Joining {
    let chain = chain_of(address);
    Joining {
        set: if address.addr().is_ipv4() { "pods4" } else { "pods6" },
        element: Element {
            key: key_of(address.addr()),
            data: Some(Data::Verdict(Verdict::Jump(chain.clone()))),
            comment: Some(identity.text().to_owned()),
        },
        chain: network_chain(&chain, address),
    }
}

fn setup() -> Vec<Command> {
    let map =
        |name: &str, key| Command::AddSet(Set { name: name.to_owned(), key: vec![key], data: Some(MapData::Verdicts) });
    let look_up = |map: &str, v4| {
        let key = Register(0);
        let mut expressions = is_family(v4);
        expressions.push(load_address(End::Source, v4, key));
        expressions.push(Expression::LookupVerdict { map: map.to_owned(), key });
        Command::AddRule(Rule { chain: "postrouting".to_owned(), expressions, comment: None })
    };
    let hook = Hook { kind: "nat", point: HookPoint::Postrouting, priority: 100 };
    vec![
        Command::AddTable { exclusive: false },
        map("pods4", Type::Ipv4Addr),
        map("pods6", Type::Ipv6Addr),
        Command::AddChain(Chain { name: "postrouting".to_owned(), hook: Some(hook) }),
        Command::FlushChain("postrouting".to_owned()),
        look_up("pods4", true),
        look_up("pods6", false),
    ]
}

/// What is not for the network itself, nor for many, is masqueraded.
fn network_chain(chain: &str, net: IpNet) -> Vec<Command> {
    let multicast = match net {
        IpNet::V4(_) => IpNet::from(ipnet::Ipv4Net::new_assert([224, 0, 0, 0].into(), 4)),
        IpNet::V6(_) => IpNet::from(ipnet::Ipv6Net::new_assert([0xff00, 0, 0, 0, 0, 0, 0, 0].into(), 8)),
    };
    let mut rules: Vec<Vec<Expression>> = Vec::new();
    for kept in [net, multicast] {
        let mut expressions = is_family(net.addr().is_ipv4());
        expressions.extend(is_in(End::Destination, kept));
        expressions.push(Expression::Verdict(Verdict::Return));
        rules.push(expressions);
    }
    rules.push(vec![Expression::Masquerade]);
    let mut commands =
        vec![Command::AddChain(Chain { name: chain.to_owned(), hook: None }), Command::FlushChain(chain.to_owned())];
    commands.extend(
        rules
            .into_iter()
            .map(|expressions| Command::AddRule(Rule { chain: chain.to_owned(), expressions, comment: None })),
    );
    commands
}
