//! The pod's side of a veth pair: its interface, addresses and routes.

use std::io;
use std::net::IpAddr;

use berth_cni::{CniError, CniResult, Interface, IpConfig, Request, code};
use berth_net::{Address, Change, Link, NetError, NewRoute, Route, sysctl};
use berth_sys::netns::{self, NetNs};
use ipnet::IpNet;

/// `RT_SCOPE_LINK`: the destination is on the link itself.
const SCOPE_LINK: u8 = 253;

/// How the pod reaches the other addresses of its subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subnet {
    /// They are on the link.
    OnLink,
    /// Only the gateway is on the link; everything else goes through it.
    BehindGateway,
}

/// Configures the pod's interface and sets it up; answers with its MTU.
pub(crate) fn configure(namespace: &NetNs, ifname: &str, result: &CniResult, subnet: Subnet) -> Result<u32, CniError> {
    let failed = |error: &dyn std::fmt::Display| CniError::io(format!("interface {ifname} of the pod"), error);
    let configured = namespace.run(|| {
        prepare(ifname, result, subnet)?;
        let mut route = Route::open()?;
        let Some(link) = route.link(ifname)? else {
            return Err(NetError::Socket(io::Error::new(io::ErrorKind::NotFound, "it is gone")));
        };
        berth_effect::run("pod-interface-configure", || route.change(&changes(result, link.index, subnet)))?;
        Ok(link.mtu)
    });
    configured.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
}

/// Settings that matter when the interface comes up.
fn prepare(ifname: &str, result: &CniResult, subnet: Subnet) -> io::Result<()> {
    let v6 = result.ips.iter().any(|ip| ip.address.addr().is_ipv6());
    let mut settings = Vec::new();
    if v6 {
        settings.push((sysctl::of_link("ipv6", "lo", "disable_ipv6"), "0"));
        settings.push((sysctl::of_link("ipv6", ifname, "disable_ipv6"), "0"));
        // Whoever sets the interface down and up again finds its addresses there still.
        settings.push((sysctl::of_link("ipv6", ifname, "keep_addr_on_down"), "1"));
    }
    if subnet == Subnet::OnLink {
        sysctl::write(&sysctl::of_link("ipv4", ifname, "arp_notify"), "1")?;
        settings.push((sysctl::of_link("ipv6", ifname, "accept_dad"), "0"));
    }
    for (setting, value) in settings {
        match sysctl::write(&setting, value) {
            // A kernel without IPv6 has nothing to set, unless an address needs it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !v6 => {}
            other => other?,
        }
    }
    Ok(())
}

fn changes(result: &CniResult, link: u32, subnet: Subnet) -> Vec<Change> {
    let mut changes: Vec<_> = result.ips.iter().map(|ip| Address::add(link, ip.address)).collect();
    // Up with its addresses: the kernel then tells the neighbours (arp_notify), who may know them elsewhere.
    changes.push(Link::set_up(link, true));
    changes.extend(routes(result, link).iter().map(NewRoute::add));
    if subnet == Subnet::BehindGateway {
        // Last: the routes above may lead through any address of the subnet, which is on the link until now.
        changes.extend(result.ips.iter().flat_map(|ip| behind_gateway(ip, link)));
    }
    changes
}

/// Routes without a gateway go through that of the first address of their family.
fn routes(result: &CniResult, link: u32) -> Vec<NewRoute> {
    let gateway_of = |dst: IpNet| -> Option<IpAddr> {
        result.ips.iter().find(|ip| ip.address.addr().is_ipv4() == dst.addr().is_ipv4()).and_then(|ip| ip.gateway)
    };
    let routes = result.routes.iter().map(|route| NewRoute {
        gateway: if route.scope == Some(SCOPE_LINK) { None } else { route.gw.or_else(|| gateway_of(route.dst)) },
        mtu: route.mtu,
        advmss: route.advmss,
        priority: route.priority,
        table: route.table,
        scope: route.scope,
        ..NewRoute::new(route.dst, None, link)
    });
    routes.collect()
}

/// In place of the route that came with the address: one to the gateway, and through it one to the rest of the subnet.
fn behind_gateway(ip: &IpConfig, link: u32) -> Vec<Change> {
    let Some(gateway) = ip.gateway else { return Vec::new() };
    let source = Some(ip.address.addr());
    let to_gateway = NewRoute { source, ..NewRoute::new(gateway.into(), None, link) };
    let whole = ip.address.trunc();
    if whole.prefix_len() == whole.max_prefix_len() {
        return vec![to_gateway.add()];
    }
    let to_subnet = NewRoute { source, ..NewRoute::new(whole, Some(gateway), link) };
    vec![NewRoute::new(whole, None, link).delete(), to_gateway.add(), to_subnet.add()]
}

/// Whether the pod's interface is as the result says: up, with its hardware address, addresses and routes.
pub(crate) fn check(request: &Request, result: &CniResult) -> Result<(), CniError> {
    let path = request.netns()?;
    let ifname = &request.ifname;
    let wrong = |msg: String| Err(CniError::new(code::GENERIC, msg));
    let is_ours = |interface: &&Interface| interface.name == *ifname && !interface.sandbox.is_empty();
    let Some(interface) = result.interfaces.iter().find(is_ours) else {
        return wrong(format!("prevResult has no interface {ifname} in a sandbox"));
    };
    let namespace = netns::open(path).map_err(|error| CniError::io(path.display(), error))?;
    let failed = |error: &dyn std::fmt::Display| CniError::io(format!("interface {ifname} of the pod"), error);
    let seen = namespace.run(|| {
        let mut route = Route::open()?;
        let Some(link) = route.link(ifname)?.filter(|link| link.up) else { return Ok(None) };
        Ok::<_, NetError>(Some((route.addresses(link.index)?, route.routes(link.index)?, link)))
    });
    let seen = seen.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    let Some((addresses, routes, link)) = seen else {
        return wrong(format!("interface {ifname} of the pod is missing or down"));
    };
    if link.kind.as_deref() != Some("veth") {
        return wrong(format!("interface {ifname} of the pod is not one end of a veth pair"));
    }
    let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    if !interface.mac.is_empty() && !interface.mac.eq_ignore_ascii_case(&mac) {
        return wrong(format!("interface {ifname} of the pod has the hardware address {mac}, not {}", interface.mac));
    }
    if let Some(missing) = result.pod_ips().find(|ip| !addresses.contains(&ip.address)) {
        return wrong(format!("interface {ifname} of the pod lacks the address {}", missing.address));
    }
    // Only the main table is looked at.
    let lacks = |route: &&berth_cni::Route| {
        let is_there = |(dst, gateway): &(IpNet, Option<IpAddr>)| {
            *dst == route.dst.trunc() && (route.gw.is_none() || *gateway == route.gw)
        };
        route.table.is_none() && !routes.iter().any(is_there)
    };
    match result.routes.iter().find(lacks) {
        Some(route) => wrong(format!("interface {ifname} of the pod lacks the route to {}", route.dst)),
        None => Ok(()),
    }
}
