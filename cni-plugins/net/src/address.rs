//! Addresses and routes.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::NetError;
use crate::route::{Change, Route};

/// Changes of addresses.
#[derive(Debug, Clone, Copy)]
pub struct Address;

impl Address {
    /// Gives a link an address. IPv6 addresses are usable at once: duplicates are the allocator's business.
    pub fn add(index: u32, address: IpNet) -> Change {
        let mut message = of(index, address);
        if let IpNet::V4(net) = address
            && net.prefix_len() < 31
        {
            message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
        }
        if matches!(address, IpNet::V6(_)) {
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        Change::create(format!("addr add {address} dev {index}"), RouteNetlinkMessage::NewAddress(message))
    }

    /// Takes it away.
    pub fn delete(index: u32, address: IpNet) -> Change {
        let message = RouteNetlinkMessage::DelAddress(of(index, address));
        Change::modify(format!("addr del {address} dev {index}"), message)
    }
}

/// A route to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRoute {
    pub dst: IpNet,
    /// `None` for a destination on the link itself.
    pub gateway: Option<IpAddr>,
    /// Index of the link.
    pub link: u32,
    pub mtu: Option<u32>,
    pub advmss: Option<u32>,
    /// The metric.
    pub priority: Option<u32>,
    /// `None` for the main table.
    pub table: Option<u32>,
    /// `None` for what follows from the gateway.
    pub scope: Option<u8>,
    /// The own address that packets on this route have by default; `None` for the kernel's choice.
    pub source: Option<IpAddr>,
}

impl NewRoute {
    pub fn new(dst: IpNet, gateway: Option<IpAddr>, link: u32) -> Self {
        Self { dst, gateway, link, mtu: None, advmss: None, priority: None, table: None, scope: None, source: None }
    }

    /// The change that adds it, where there is none to the destination with this metric.
    pub fn add(&self) -> Change {
        Change::create(self.operation("add"), RouteNetlinkMessage::NewRoute(self.message()))
    }

    /// The change that adds it in place of the one to the destination with this metric, if there is one.
    pub fn replace(&self) -> Change {
        Change::replace(self.operation("replace"), RouteNetlinkMessage::NewRoute(self.message()))
    }

    /// The change that deletes the route to the destination through the link, whoever added it.
    pub fn delete(&self) -> Change {
        let mut message = self.message();
        message.header.protocol = RouteProtocol::Unspec;
        message.header.kind = RouteType::Unspec;
        message.header.scope = RouteScope::NoWhere;
        Change::modify(self.operation("del"), RouteNetlinkMessage::DelRoute(message))
    }

    fn operation(&self, verb: &str) -> String {
        let via = self.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
        format!("route {verb} {}{via} dev {}", self.dst, self.link)
    }

    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = family(self.dst.addr());
        message.header.destination_prefix_length = self.dst.prefix_len();
        message.header.protocol = RouteProtocol::Boot;
        message.header.kind = RouteType::Unicast;
        message.header.scope = match (self.scope, self.gateway) {
            (Some(scope), _) => scope.into(),
            (None, Some(_)) => RouteScope::Universe,
            (None, None) => RouteScope::Link,
        };
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.attributes = vec![RouteAttribute::Oif(self.link)];
        if self.dst.prefix_len() > 0 {
            message.attributes.push(RouteAttribute::Destination(self.dst.trunc().addr().into()));
        }
        message.attributes.extend(self.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
        message.attributes.extend(self.source.map(|source| RouteAttribute::PrefSource(source.into())));
        message.attributes.extend(self.priority.map(RouteAttribute::Priority));
        if let Some(table) = self.table {
            message.header.table = RouteHeader::RT_TABLE_UNSPEC;
            message.attributes.push(RouteAttribute::Table(table));
        }
        let metrics: Vec<_> =
            self.mtu.map(RouteMetric::Mtu).into_iter().chain(self.advmss.map(RouteMetric::Advmss)).collect();
        if !metrics.is_empty() {
            message.attributes.push(RouteAttribute::Metrics(metrics));
        }
        message
    }
}

impl Route {
    /// The addresses of a link, of both families.
    ///
    /// # Errors
    /// When the kernel can't be asked.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<IpNet>, NetError> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        let answers = match self.dump("addr list", &RouteNetlinkMessage::GetAddress(message)) {
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            answers => answers?,
        };
        let addresses = answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(message) if message.header.index == index => address_of(message),
            _ => None,
        });
        Ok(addresses.collect())
    }

    /// The routes of the main table, of both families, through a link.
    ///
    /// # Errors
    /// When the kernel can't be asked.
    pub fn routes(&mut self, index: u32) -> Result<Vec<(IpNet, Option<IpAddr>)>, NetError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            message.attributes.push(RouteAttribute::Oif(index));
            for answer in self.dump("route list", &RouteNetlinkMessage::GetRoute(message))? {
                if let RouteNetlinkMessage::NewRoute(message) = answer
                    && message.header.table == RouteHeader::RT_TABLE_MAIN
                {
                    found.extend(route_of(&message));
                }
            }
        }
        Ok(found)
    }
}

fn of(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(address.addr()), AddressAttribute::Address(address.addr())];
    message
}

fn address_of(message: &AddressMessage) -> Option<IpNet> {
    let mut local = None;
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    // IPv6 has no "local"; on point-to-point links "address" is the other end's.
    IpNet::new(local.or(address)?, message.header.prefix_len).ok()
}

fn route_of(message: &RouteMessage) -> Option<(IpNet, Option<IpAddr>)> {
    let v4 = message.header.address_family == AddressFamily::Inet;
    let mut dst = if v4 { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let mut gateway = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => dst = ip_of(address)?,
            RouteAttribute::Gateway(address) => gateway = Some(ip_of(address)?),
            _ => {}
        }
    }
    Some((IpNet::new(dst, message.header.destination_prefix_length).ok()?, gateway))
}

fn ip_of(address: &netlink_packet_route::route::RouteAddress) -> Option<IpAddr> {
    use netlink_packet_route::route::RouteAddress;
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
