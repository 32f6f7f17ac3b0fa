//! `loopback`: the pod's `lo`, up.

use std::net::{Ipv4Addr, Ipv6Addr};

use berth_cni::{CniError, CniResult, Command, Interface, IpConfig, Request};
use berth_net::{Link, NetError, Route};
use berth_sys::netns;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

pub(crate) fn call(request: &Request) -> Result<Option<CniResult>, CniError> {
    match request.command {
        Command::Add => add(request).map(Some),
        Command::Del => del(request).map(|()| None),
        Command::Check => check(request).map(|()| None),
        // Nothing outlives the namespace, and nothing is needed from the host.
        Command::Gc | Command::Status | Command::Version => Ok(None),
    }
}

fn add(request: &Request) -> Result<CniResult, CniError> {
    let path = request.netns()?;
    let addresses = in_pod(request, |route| {
        let Some(lo) = route.link(&request.ifname)? else { return Ok(None) };
        if !lo.up {
            berth_effect::run("loopback-up", || route.change(&[Link::set_up(lo.index, true)]))?;
        }
        Ok(Some(route.addresses(lo.index)?))
    })?;
    let Some(addresses) = addresses else {
        return Err(CniError::config(format!("there is no interface {} in {}", request.ifname, path.display())));
    };
    if let Some(result) = &request.prev_result {
        return Ok(result.clone());
    }
    let sandbox = path.display().to_string();
    let mac = "00:00:00:00:00:00".to_owned();
    let expected = [
        Ipv4Net::new(Ipv4Addr::LOCALHOST, 8).map(IpNet::V4).ok(),
        Ipv6Net::new(Ipv6Addr::LOCALHOST, 128).map(IpNet::V6).ok(),
    ];
    // The kernel gives lo its addresses with the first "up", the IPv6 one only where IPv6 is enabled.
    let ips = expected.into_iter().flatten().filter(|address| addresses.contains(address));
    Ok(CniResult {
        interfaces: vec![Interface { name: request.ifname.clone(), mac, sandbox, ..Interface::default() }],
        ips: ips.map(|address| IpConfig { address, gateway: None, interface: Some(0) }).collect(),
        ..CniResult::default()
    })
}

/// Down again, if there still is a namespace.
fn del(request: &Request) -> Result<(), CniError> {
    if request.netns.as_ref().is_none_or(|path| !path.exists()) {
        return Ok(());
    }
    let down = in_pod(request, |route| match route.link(&request.ifname)? {
        Some(lo) => berth_effect::run("loopback-down", || route.change(&[Link::set_up(lo.index, false)])),
        None => Ok(()),
    });
    match down {
        // The path may be what a namespace left behind: then there is no lo to set down.
        Err(_) if request.netns.as_ref().is_some_and(|path| netns::open(path).is_err()) => Ok(()),
        other => other,
    }
}

fn check(request: &Request) -> Result<(), CniError> {
    let up = in_pod(request, |route| Ok(route.link(&request.ifname)?.is_some_and(|lo| lo.up)))?;
    if up { Ok(()) } else { Err(CniError::config(format!("interface {} is not up", request.ifname))) }
}

fn in_pod<T: Send>(
    request: &Request,
    work: impl FnOnce(&mut Route) -> Result<T, NetError> + Send,
) -> Result<T, CniError> {
    let path = request.netns()?;
    let failed = |error: &dyn std::fmt::Display| CniError::io(format!("network namespace {}", path.display()), error);
    let namespace = netns::open(path).map_err(|error| failed(&error))?;
    let outcome = namespace.run(|| work(&mut Route::open()?)).map_err(|error| failed(&error))?;
    outcome.map_err(|error| failed(&error))
}
