//! Links: bridges, veth pairs, and what is set on them.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::str::FromStr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags,
    LinkInfo, LinkMessage, State,
};

use crate::NetError;
use crate::route::{Change, Route};
use crate::socket::malformed;

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

/// A link as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// "bridge", "veth", …; `None` for links without a driver's name, such as `lo`.
    pub kind: Option<String>,
    pub mac: Option<Mac>,
    /// Bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Index of the bridge (or other master) that it is a port of.
    pub master: Option<u32>,
    pub alias: Option<String>,
    pub promiscuous: bool,
    /// Operationally up: frames pass.
    pub carries: bool,
}

/// A pair of links to make: one end here, the other in another namespace.
#[derive(Debug, Clone)]
pub struct NewVeth<'a> {
    /// Name of the end in this namespace. It is made up, so it carries as soon as the peer is up.
    pub name: &'a str,
    pub mac: Mac,
    /// Index of the bridge that this end becomes a port of.
    pub master: Option<u32>,
    pub peer_name: &'a str,
    pub peer_mac: Mac,
    /// The namespace of the peer, which is made down.
    pub peer_namespace: BorrowedFd<'a>,
    /// Bytes; `None` for the kernel's default.
    pub mtu: Option<u32>,
}

impl Link {
    /// A bridge, down. `None` for the kernel's default of the MTU.
    pub fn create_bridge(name: &str, mac: Mac, mtu: Option<u32>) -> Change {
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(mac.0.to_vec()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ];
        link.attributes.extend(mtu.map(LinkAttribute::Mtu));
        Change::create(format!("link add {name} type bridge"), RouteNetlinkMessage::NewLink(link))
    }

    /// Both ends of a pair in one message: nothing has to be moved, and no name is ever taken in the wrong namespace.
    pub fn create_veth(new: &NewVeth<'_>) -> Change {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(new.peer_name.to_owned()),
            LinkAttribute::Address(new.peer_mac.0.to_vec()),
            LinkAttribute::NetNsFd(new.peer_namespace.as_raw_fd()),
        ];
        peer.attributes.extend(new.mtu.map(LinkAttribute::Mtu));
        let mut link = LinkMessage::default();
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        link.attributes = vec![LinkAttribute::IfName(new.name.to_owned()), LinkAttribute::Address(new.mac.0.to_vec())];
        link.attributes.extend(new.mtu.map(LinkAttribute::Mtu));
        link.attributes.extend(new.master.map(LinkAttribute::Controller));
        let data = InfoData::Veth(InfoVeth::Peer(peer));
        link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)]));
        let operation = format!("link add {} type veth peer {}", new.name, new.peer_name);
        Change::create(operation, RouteNetlinkMessage::NewLink(link))
    }

    /// Up or down.
    pub fn set_up(index: u32, up: bool) -> Change {
        let mut link = by_index(index);
        link.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        link.header.change_mask = LinkFlags::Up;
        let state = if up { "up" } else { "down" };
        Change::modify(format!("link set {index} {state}"), RouteNetlinkMessage::SetLink(link))
    }

    /// Takes in frames for everybody.
    pub fn set_promiscuous(index: u32) -> Change {
        let mut link = by_index(index);
        link.header.flags = LinkFlags::Promisc;
        link.header.change_mask = LinkFlags::Promisc;
        Change::modify(format!("link set {index} promisc on"), RouteNetlinkMessage::SetLink(link))
    }

    /// Pins the hardware address. A bridge without a pinned one takes the lowest of its ports'.
    pub fn set_mac(index: u32, mac: Mac) -> Change {
        set(format!("link set {index} address {mac}"), by_index(index), LinkAttribute::Address(mac.0.to_vec()))
    }

    /// Bytes.
    pub fn set_mtu(index: u32, mtu: u32) -> Change {
        set(format!("link set {index} mtu {mtu}"), by_index(index), LinkAttribute::Mtu(mtu))
    }

    /// Becomes a port of a bridge.
    pub fn set_master(index: u32, master: u32) -> Change {
        set(format!("link set {index} master {master}"), by_index(index), LinkAttribute::Controller(master))
    }

    /// Moves the link into another namespace, in which its name must be free.
    pub fn set_namespace(index: u32, namespace: BorrowedFd<'_>) -> Change {
        set(format!("link set {index} netns"), by_index(index), LinkAttribute::NetNsFd(namespace.as_raw_fd()))
    }

    /// A new name; before Linux 6.2 the link must be down.
    pub fn rename(index: u32, name: &str) -> Change {
        set(format!("link set {index} name {name}"), by_index(index), LinkAttribute::IfName(name.to_owned()))
    }

    /// A text of up to 255 bytes that the kernel keeps with the link.
    pub fn set_alias(name: &str, alias: &str) -> Change {
        set(format!("link set {name} alias"), by_name(name), LinkAttribute::IfAlias(alias.to_owned()))
    }

    /// Whether a bridge sends frames back out of this port of it.
    pub fn set_hairpin(name: &str, hairpin: bool) -> Change {
        let mut link = by_name(name);
        let port = InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(hairpin)]);
        let info = vec![LinkInfo::PortKind(InfoPortKind::Bridge), LinkInfo::PortData(port)];
        link.attributes.push(LinkAttribute::LinkInfo(info));
        // Port settings are part of RTM_NEWLINK; without NLM_F_CREATE it changes the link that exists.
        Change::modify(format!("link set {name} hairpin"), RouteNetlinkMessage::NewLink(link))
    }

    /// The end of the link and of its peer.
    pub fn delete(name: &str) -> Change {
        Change::modify(format!("link del {name}"), RouteNetlinkMessage::DelLink(by_name(name)))
    }

    fn from_message(message: &LinkMessage) -> Result<Self, NetError> {
        let mut name = None;
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            kind: None,
            mac: None,
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            master: None,
            alias: None,
            promiscuous: message.header.flags.contains(LinkFlags::Promisc),
            carries: false,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = Some(text.clone()),
                LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok().map(Mac),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Controller(master) => link.master = Some(*master),
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
                LinkAttribute::OperState(state) => link.carries = *state == State::Up,
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link.name = name.ok_or_else(|| malformed("link get", "a link has no name"))?;
        Ok(link)
    }
}

impl Route {
    /// The link of that name; `None` when there is none.
    ///
    /// # Errors
    /// When the kernel can't be asked.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetError> {
        let mut message = by_name(name);
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        match self.get(&format!("link get {name}"), &RouteNetlinkMessage::GetLink(message)) {
            Ok(RouteNetlinkMessage::NewLink(message)) => Link::from_message(&message).map(Some),
            Ok(_) => Err(malformed("link get", "it is not a link")),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every link, or only those with the given master.
    ///
    /// # Errors
    /// When the kernel can't be asked.
    pub fn links(&mut self, master: Option<u32>) -> Result<Vec<Link>, NetError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        message.attributes.extend(master.map(LinkAttribute::Controller));
        let answers = self.dump("link list", &RouteNetlinkMessage::GetLink(message))?;
        let links = answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some(Link::from_message(message)),
            _ => None,
        });
        links.collect()
    }
}

fn set(operation: String, mut link: LinkMessage, attribute: LinkAttribute) -> Change {
    link.attributes.push(attribute);
    Change::modify(operation, RouteNetlinkMessage::SetLink(link))
}

fn by_index(index: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link
}

fn by_name(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link
}

impl Mac {
    /// A random unicast address of the kind that nobody assigns.
    pub fn random() -> Self {
        // The standard library seeds this from the kernel, and no two states of a process are alike.
        let [mut first, b, c, d, e, f, ..] = RandomState::new().hash_one(std::process::id()).to_ne_bytes();
        first = first & 0xfe | 0x02;
        Self([first, b, c, d, e, f])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("\"{text}\" is not a hardware address of the form 02:00:00:00:00:01");
        let bytes: Vec<u8> = text
            .split([':', '-'])
            .map(|byte| if byte.len() == 2 { u8::from_str_radix(byte, 16).ok() } else { None })
            .collect::<Option<_>>()
            .ok_or_else(wrong)?;
        bytes.try_into().map(Self).map_err(|_| wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_read_and_written() {
        let mac: Mac = "02:0a:ff:00:00:01".parse().expect("valid");
        assert_eq!(mac.to_string(), "02:0a:ff:00:00:01");
        for wrong in ["", "02:0a:ff:00:00", "02:0a:ff:00:00:01:02", "2:a:f:0:0:1", "02:0a:ff:00:00:zz"] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
        let random = Mac::random();
        assert_ne!(random, Mac::random());
        assert_eq!(random.0[0] & 3, 2, "unicast and locally administered");
    }
}
