//! Host ports: connections to an address of the host go on to a pod.
//!
//! ```text
//! table ip berth_hostport {
//!   map ports { type inet_proto . inet_service : ipv4_addr . inet_service }
//!   map address_ports { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }
//!   map pods { type ipv4_addr : verdict }
//!   set localnet { type ifname }
//!   chain prerouting { type nat hook prerouting priority dstnat; fib daddr type local jump to_pods }
//!   chain output { type nat hook output priority dstnat; fib daddr type local jump to_pods }
//!   chain to_pods { meta mark set mark or 0x2000 dnat to … map @address_ports; … map @ports }
//!   chain postrouting { type nat hook postrouting priority srcnat; meta mark and 0x2000 == 0 return
//!                       ip saddr 127.0.0.0/8 masquerade; ip daddr vmap @pods }
//!   chain input { type filter hook input priority filter; iifname @localnet ip daddr 127.0.0.0/8 ct state new drop }
//! }
//! ```
//!
//! Only what is addressed to the host is touched (GHSA-jv3w-x3r3-g6rm). Connections from the pod's own network and from
//! 127.0.0.1 are masqueraded, or the answer would not come back through the host. For 127.0.0.1 the host's side of the
//! network needs `route_localnet`, which alone would let pods reach whatever listens on the host's loopback; `input`
//! keeps them out. The links on which we set it are in `localnet`; it is taken back with the table, and from a link that
//! is an attachment's own with the attachment.

use std::collections::BTreeSet;
use std::net::IpAddr;

use berth_cni::CniError;
use berth_net::nft::{
    Base, Batch, Chain, Command, CtKey, Data, Element, Expression, Family, Hook, HookPoint, MapData, MetaKey, Operator,
    Register, Rule, Set, Type, Verdict,
};
use berth_net::{NetError, conntrack, sysctl};
use ipnet::{IpNet, Ipv4Net};

use crate::identity::{self, Identity, Wanted};
use crate::tables::{End, Held, Joining, Table, chain_of, decide, is_in, key_of, load_address};

/// The bit by which packets to host ports are known on their way; the reference plugin's default.
const MARK: u32 = 0x2000;

const UDP: u8 = 17;

const SETS: &[&str] = &["ports", "address_ports", "pods"];
const LOCALNET: &str = "localnet";
const V4: Table = Table { family: Family::Ip, name: "berth_hostport", sets: SETS, setup };
const V6: Table = Table { family: Family::Ip6, name: "berth_hostport", sets: SETS, setup };

/// A port of the host that leads to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// `None`: of all the host's addresses.
    pub(crate) address: Option<IpAddr>,
    /// IP protocol number.
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    pub(crate) pod_port: u16,
}

/// Which connections to a host port get the host's address as their source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceNat {
    Never,
    /// Those from the pod's own network, and from 127.0.0.1.
    Needed,
    Always,
}

/// A port that somebody else holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) port: HostPort,
    /// The identity of the holder.
    pub(crate) holder: String,
}

/// Leads host ports to one address of a pod, in place of whatever the attachment had before. `localnet` is the link on
/// which connections from 127.0.0.1 reach the pod.
pub(crate) fn add(
    identity: &Identity,
    pod: IpNet,
    ports: &[HostPort],
    nat: SourceNat,
    localnet: Option<&str>,
) -> Result<Result<(), Conflict>, CniError> {
    let table = if pod.addr().is_ipv4() { V4 } else { V6 };
    let setting = localnet.map(|link| setting_of(&link_key(link)));
    let switch = setting.filter(|setting| sysctl::read(setting).is_ok_and(|value| value == "0"));
    let outcome = decide(|nft| {
        let held = table.held(nft)?;
        if let Some(conflict) = conflict(&held, identity, ports) {
            return Ok((None, Err(conflict)));
        }
        let joining = joining(identity, pod, ports, nat);
        let mut batch = table.plan(&held, |held| held.comment() == identity.text(), &joining);
        if let (Some(batch), Some(link), true) = (&mut batch, localnet, switch.is_some()) {
            let known = nft.elements(table.family, table.name, LOCALNET)?;
            if !known.iter().any(|listed| listed.key == link_key(link)) {
                let element = Element { key: link_key(link), data: None, comment: None };
                batch.commands.push(Command::AddElements { set: LOCALNET.to_owned(), elements: vec![element] });
            }
        }
        Ok((batch, Ok(())))
    })?;
    // Only now that pods are kept away from the host's loopback.
    if let (Ok(()), Some(setting)) = (&outcome, switch) {
        let failed = |error| CniError::io(&setting, error);
        berth_effect::run("sysctl-write", || sysctl::write(&setting, "1")).map_err(failed)?;
    }
    if outcome.is_ok() {
        forget(table.family, ports.iter().filter(|port| port.protocol == UDP).map(|port| port.port));
    }
    Ok(outcome)
}

/// Clients that go on sending are treated by the new rules. Where the kernel can't forget, their connections end by
/// themselves, 30 s after the client paused.
fn forget(family: Family, udp_ports: impl Iterator<Item = u16>) {
    for port in udp_ports.collect::<BTreeSet<_>>() {
        let _ = conntrack::forget_udp(family, port);
    }
}

/// Ends all host ports of an attachment.
pub(crate) fn remove(identity: &Identity) -> Result<(), CniError> {
    release(|held| held.comment() == identity.text())
}

/// Ends the host ports of the network's attachments that are not wanted any more.
pub(crate) fn gc(wanted: &Wanted) -> Result<(), CniError> {
    release(|held| wanted.is_stale(held.comment()))
}

/// Whether the attachment holds each of the ports.
pub(crate) fn check(identity: &Identity, pod: IpNet, ports: &[HostPort]) -> Result<bool, CniError> {
    let table = if pod.addr().is_ipv4() { V4 } else { V6 };
    let held = decide(|nft| Ok((None, table.held(nft)?)))?;
    Ok(ports.iter().all(|port| {
        let wanted = (set_of(port), key(port), value(pod.addr(), port));
        held.iter().any(|held| {
            held.comment() == identity.text()
                && (held.set, &held.listed.key, held.listed.value.as_ref()) == (wanted.0, &wanted.1, Some(&wanted.2))
        })
    }))
}

fn release(leaves: impl Fn(&Held) -> bool) -> Result<(), CniError> {
    for table in [V4, V6] {
        let mut withdrawn: BTreeSet<String> = BTreeSet::new();
        let (left, udp_ports) = decide(|nft| {
            let held = table.held(nft)?;
            let leaving: Vec<_> = held.iter().filter(|held| leaves(held)).collect();
            let udp_ports: Vec<_> = leaving.iter().filter_map(|held| udp_port(held)).collect();
            let Some(mut batch) = table.plan(&held, &leaves, &[]) else { return Ok((None, (Vec::new(), udp_ports))) };
            let owned: BTreeSet<_> = leaving.iter().map(|held| link_key(&identity::veth_of(held.comment()))).collect();
            let known = nft.elements(table.family, table.name, LOCALNET)?.into_iter().map(|listed| listed.key);
            let left: Vec<_> = known.filter(|key| is_end(&batch) || owned.contains(key) || is_gone(key)).collect();
            // Before what makes route_localnet harmless is gone.
            for key in &left {
                let setting = setting_of(key);
                set_if_there(&setting, "0")?;
                withdrawn.insert(setting);
            }
            if !left.is_empty() && !is_end(&batch) {
                batch.commands.push(Command::DeleteElements { set: LOCALNET.to_owned(), keys: left.clone() });
            }
            Ok((Some(batch), (left, udp_ports)))
        })?;
        forget(table.family, udp_ports.into_iter());
        for key in &left {
            withdrawn.remove(&setting_of(key));
        }
        // Somebody else joined between our look and our change: the table stayed, and so must these.
        for setting in withdrawn {
            set_if_there(&setting, "1").map_err(|error| CniError::io(&setting, error))?;
        }
    }
    Ok(())
}

fn is_end(batch: &Batch) -> bool {
    batch.commands.contains(&Command::DeleteTable)
}

/// The link may be gone, and its settings with it.
fn set_if_there(setting: &str, value: &str) -> Result<(), NetError> {
    match berth_effect::run("sysctl-write", || sysctl::write(setting, value)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// A port of all addresses conflicts with the same port of one, as it does when processes listen.
fn conflict(held: &[Held], identity: &Identity, ports: &[HostPort]) -> Option<Conflict> {
    let others = || held.iter().filter(|held| held.set != "pods" && held.comment() != identity.text());
    ports.iter().find_map(|port| {
        let wanted = key(port);
        let holder = others().find(|held| match (port.address, held.set) {
            (None, "address_ports") => held.listed.key.ends_with(&wanted),
            (Some(_), "ports") => wanted.ends_with(&held.listed.key),
            _ => held.listed.key == wanted,
        })?;
        Some(Conflict { port: port.clone(), holder: holder.comment().to_owned() })
    })
}

fn joining(identity: &Identity, pod: IpNet, ports: &[HostPort], nat: SourceNat) -> Vec<Joining> {
    let comment = || Some(identity.text().to_owned());
    let element = |key, data| Element { key, data: Some(data), comment: comment() };
    let mut joining: Vec<_> = ports
        .iter()
        .map(|port| Joining {
            set: set_of(port),
            element: element(key(port), Data::Value(value(pod.addr(), port))),
            chain: Vec::new(),
        })
        .collect();
    let (chain, masqueraded) = match nat {
        SourceNat::Never => return joining,
        SourceNat::Needed => (chain_of(pod), is_in(End::Source, pod)),
        SourceNat::Always => ("net-all".to_owned(), Vec::new()),
    };
    let mut expressions = masqueraded;
    expressions.push(Expression::Masquerade);
    joining.push(Joining {
        set: "pods",
        element: element(key_of(pod.addr()), Data::Verdict(Verdict::Jump(chain.clone()))),
        chain: vec![
            Command::AddChain(Chain { name: chain.clone(), hook: None }),
            Command::FlushChain(chain.clone()),
            Command::AddRule(Rule { chain, expressions, comment: None }),
        ],
    });
    joining
}

fn set_of(port: &HostPort) -> &'static str {
    if port.address.is_some() { "address_ports" } else { "ports" }
}

/// `[address .] protocol . port`, each padded to 4 bytes.
fn key(port: &HostPort) -> Vec<u8> {
    let mut key = port.address.map(key_of).unwrap_or_default();
    key.extend_from_slice(&[port.protocol, 0, 0, 0]);
    key.extend_from_slice(&padded(port.port));
    key
}

/// The port of an element whose key is one of UDP.
fn udp_port(held: &Held) -> Option<u16> {
    let [protocol, _, _, _, high, low, _, _] = *held.listed.key.last_chunk()?;
    (held.set != "pods" && protocol == UDP).then_some(u16::from_be_bytes([high, low]))
}

/// `address . port`.
fn value(pod: IpAddr, port: &HostPort) -> Vec<u8> {
    let mut value = key_of(pod);
    value.extend_from_slice(&padded(port.pod_port));
    value
}

fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// A link's name as a key: 16 bytes.
fn link_key(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.resize(16, 0);
    key
}

/// The setting that lets connections from 127.0.0.1 out of the link.
fn setting_of(link: &[u8]) -> String {
    sysctl::of_link("ipv4", &link_name(link), "route_localnet")
}

/// A link that somebody deleted: its element would wait for the table's end.
fn is_gone(link: &[u8]) -> bool {
    sysctl::read(&setting_of(link)).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn link_name(key: &[u8]) -> String {
    String::from_utf8_lossy(key).trim_end_matches('\0').to_owned()
}

fn setup(family: Family) -> Vec<Command> {
    let v4 = family == Family::Ip;
    let address = if v4 { Type::Ipv4Addr } else { Type::Ipv6Addr };
    let destinations = Some(MapData::Values(vec![address, Type::InetService]));
    let set = |name: &str, key, data| Command::AddSet(Set { name: name.to_owned(), key, data });
    let chain = |name: &str, hook| Command::AddChain(Chain { name: name.to_owned(), hook });
    let hook = |kind, point, priority| Some(Hook { kind, point, priority });
    let mut commands = vec![
        Command::AddTable { exclusive: false },
        set("ports", vec![Type::InetProto, Type::InetService], destinations.clone()),
        set("address_ports", vec![address, Type::InetProto, Type::InetService], destinations),
        set("pods", vec![address], Some(MapData::Verdicts)),
        set(LOCALNET, vec![Type::Ifname], None),
        chain("prerouting", hook("nat", HookPoint::Prerouting, -100)),
        chain("output", hook("nat", HookPoint::Output, -100)),
        chain("postrouting", hook("nat", HookPoint::Postrouting, 100)),
        chain("input", hook("filter", HookPoint::Input, 0)),
        chain("to_pods", None),
    ];
    for name in ["prerouting", "output", "postrouting", "input", "to_pods"] {
        commands.push(Command::FlushChain(name.to_owned()));
    }
    commands.extend(
        rules(family)
            .into_iter()
            .map(|(chain, expressions)| Command::AddRule(Rule { chain: chain.to_owned(), expressions, comment: None })),
    );
    commands
}

fn rules(family: Family) -> Vec<(&'static str, Vec<Expression>)> {
    let v4 = family == Family::Ip;
    let register = Register(0);
    let to_the_host = || {
        let value = Expression::TYPE_LOCAL.to_ne_bytes().to_vec();
        vec![
            Expression::DestinationType { to: register },
            Expression::Compare { register, operator: Operator::Equal, value },
            Expression::Verdict(Verdict::Jump("to_pods".to_owned())),
        ]
    };
    let mut unmarked = vec![Expression::Meta { key: MetaKey::Mark, to: register }];
    unmarked.extend(has_bits(register, MARK, Operator::Equal));
    unmarked.push(Expression::Verdict(Verdict::Return));
    let from_network = vec![
        load_address(End::Destination, v4, register),
        Expression::LookupVerdict { map: "pods".to_owned(), key: register },
    ];
    let mut rules = vec![
        ("prerouting", to_the_host()),
        ("output", to_the_host()),
        ("to_pods", to_pod(family, "address_ports")),
        ("to_pods", to_pod(family, "ports")),
        ("postrouting", unmarked),
    ];
    if v4 {
        let loopback = IpNet::V4(Ipv4Net::new_assert([127, 0, 0, 0].into(), 8));
        let mut from_loopback = is_in(End::Source, loopback);
        from_loopback.push(Expression::Masquerade);
        rules.push(("postrouting", from_loopback));
        let mut guard = vec![
            Expression::Meta { key: MetaKey::InputName, to: register },
            Expression::Lookup { set: LOCALNET.to_owned(), key: register, to: None },
        ];
        guard.extend(is_in(End::Destination, loopback));
        guard.push(Expression::Ct { key: CtKey::State, to: register });
        let answers = Expression::STATE_ESTABLISHED | Expression::STATE_RELATED;
        guard.extend(has_bits(register, answers, Operator::Equal));
        guard.push(Expression::Verdict(Verdict::Drop));
        rules.push(("input", guard));
    }
    rules.push(("postrouting", from_network));
    rules
}

/// Looks the port up, marks the packet and rewrites its destination.
fn to_pod(family: Family, map: &str) -> Vec<Expression> {
    let v4 = family == Family::Ip;
    // The key ends with protocol and port in registers 4 and 5; an address goes before them.
    let (address, protocol, port) = (Register(if v4 { 3 } else { 0 }), Register(4), Register(5));
    let (pod, mark) = (Register(8), Register(15));
    let pod_port = Register(if v4 { 9 } else { 12 });
    let mut expressions = Vec::new();
    let mut key = protocol;
    if map == "address_ports" {
        expressions.push(load_address(End::Destination, v4, address));
        key = address;
    }
    expressions.extend([
        Expression::Meta { key: MetaKey::TransportProtocol, to: protocol },
        Expression::Payload { base: Base::Transport, offset: 2, length: 2, to: port },
        Expression::Lookup { set: map.to_owned(), key, to: Some(pod) },
        Expression::Meta { key: MetaKey::Mark, to: mark },
        Expression::Bitwise {
            from: mark,
            to: mark,
            mask: (!MARK).to_ne_bytes().to_vec(),
            xor: MARK.to_ne_bytes().to_vec(),
        },
        Expression::SetMark { from: mark },
        Expression::Dnat { family, address: pod, port: pod_port },
    ]);
    expressions
}

/// Goes on when the register has none of the bits (`Equal` to 0) or some of them (`NotEqual`).
fn has_bits(register: Register, bits: u32, operator: Operator) -> [Expression; 2] {
    [
        Expression::Bitwise { from: register, to: register, mask: bits.to_ne_bytes().to_vec(), xor: vec![0; 4] },
        Expression::Compare { register, operator, value: vec![0; 4] },
    ]
}

#[cfg(test)]
mod tests;
