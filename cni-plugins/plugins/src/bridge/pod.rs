//! The pod's side: its interface, addresses and routes.

use std::io;
use std::net::IpAddr;

use berth_cni::{CniError, CniResult, code};
use berth_net::{Address, Link, NetError, NewRoute, Route, sysctl};
use berth_sys::netns::NetNs;
use ipnet::IpNet;

/// `RT_SCOPE_LINK`: the destination is on the link itself.
const SCOPE_LINK: u8 = 253;

/// Configures the pod's interface and sets it up; answers with its MTU.
pub(super) fn configure(namespace: &NetNs, ifname: &str, result: &CniResult) -> Result<u32, CniError> {
    let failed = |error: &dyn std::fmt::Display| CniError::io(format!("interface {ifname} of the pod"), error);
    let configured = namespace.run(|| {
        prepare(ifname, result)?;
        let mut route = Route::open()?;
        let Some(link) = route.link(ifname)? else {
            return Err(NetError::Socket(io::Error::new(io::ErrorKind::NotFound, "it is gone")));
        };
        let mut changes: Vec<_> = result.ips.iter().map(|ip| Address::add(link.index, ip.address)).collect();
        // Up with its addresses: the kernel then tells the neighbours (arp_notify), who may know them elsewhere.
        changes.push(Link::set_up(link.index, true));
        changes.extend(routes(result, link.index).iter().map(NewRoute::add));
        berth_effect::run("pod-interface-configure", || route.change(&changes))?;
        Ok(link.mtu)
    });
    configured.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
}

/// Settings that matter when the interface comes up.
fn prepare(ifname: &str, result: &CniResult) -> io::Result<()> {
    sysctl::write(&sysctl::of_link("ipv4", ifname, "arp_notify"), "1")?;
    let v6 = result.ips.iter().any(|ip| ip.address.addr().is_ipv6());
    let settings: &[_] = if v6 { &[("disable_ipv6", "0"), ("accept_dad", "0")] } else { &[("accept_dad", "0")] };
    for (setting, value) in settings {
        match sysctl::write(&sysctl::of_link("ipv6", ifname, setting), value) {
            // A kernel without IPv6 has nothing to set, unless an address needs it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !v6 => {}
            other => other?,
        }
    }
    Ok(())
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

/// Whether the interface is up and has the addresses.
pub(super) fn check(namespace: &NetNs, ifname: &str, addresses: &[IpNet]) -> Result<(), CniError> {
    let failed = |error: &dyn std::fmt::Display| CniError::io(format!("interface {ifname} of the pod"), error);
    let seen = namespace.run(|| {
        let mut route = Route::open()?;
        match route.link(ifname)?.filter(|link| link.up) {
            Some(link) => route.addresses(link.index).map(Some),
            None => Ok(None),
        }
    });
    let held = seen.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    let wrong = |msg: String| Err(CniError::new(code::GENERIC, msg));
    let Some(held) = held else { return wrong(format!("interface {ifname} of the pod is missing or down")) };
    match addresses.iter().find(|address| !held.contains(address)) {
        Some(missing) => wrong(format!("interface {ifname} of the pod lacks the address {missing}")),
        None => Ok(()),
    }
}
