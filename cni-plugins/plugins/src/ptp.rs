//! `ptp`: a veth pair between the pod and the host, which routes. No bridge: pods of one subnet meet in the host.
//!
//! ```text
//! pod:   10.244.1.5/24 on eth0            host:  10.244.1.1/32 on vethHASH
//!        10.244.1.1 dev eth0                     10.244.1.5 dev vethHASH
//!        10.244.1.0/24 via 10.244.1.1
//! ```
//!
//! Every host's end has the gateway's address, so that each pod finds it on its own link. What users see (addresses,
//! routes, results) is as the reference plugin makes it (`plugins@v1.9.1:plugins/main/ptp/ptp.go#cmdAdd`).

use std::net::IpAddr;
use std::os::fd::AsFd;

use berth_cni::{CniError, CniResult, Command, Dns, Interface, Request, code};
use berth_net::{Address, Link, Mac, NewRoute, NewVeth, Route};
use berth_sys::netns::NetNs;
use serde::Deserialize;

use crate::identity::Identity;
use crate::pod::{self, Subnet};
use crate::{forwarding, masquerade, options, veth};

/// `RT_SCOPE_HOST`: what the reference plugin gives the host's route to the pod.
const SCOPE_HOST: u8 = 254;

/// The place of the pod's interface in the result.
const POD: usize = 1;

/// The checked configuration.
#[derive(Debug)]
struct Config {
    ip_masq: bool,
    mtu: Option<u32>,
    ipam: String,
    dns: Dns,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    ip_masq: bool,
    #[serde(default)]
    mtu: u32,
    #[serde(default)]
    dns: Option<Dns>,
}

pub(crate) fn call(request: &Request) -> Result<Option<CniResult>, CniError> {
    match request.command {
        Command::Add => add(request).map(Some),
        Command::Del => veth::detach(request).map(|()| None),
        Command::Check => check(request).map(|()| None),
        Command::Gc => veth::gc(request).map(|()| None),
        Command::Status => status(request).map(|()| None),
        Command::Version => Ok(None),
    }
}

fn read(request: &Request) -> Result<Config, CniError> {
    options::check_masquerade_backend(request)?;
    let raw: Raw = request.config()?;
    let ipam = options::ipam_of(request);
    Ok(Config {
        ip_masq: raw.ip_masq,
        mtu: (raw.mtu > 0).then_some(raw.mtu),
        ipam: ipam.ok_or_else(|| CniError::config("field \"ipam.type\" is missing: ptp needs addresses"))?,
        dns: raw.dns.unwrap_or_default(),
    })
}

fn add(request: &Request) -> Result<CniResult, CniError> {
    let config = read(request)?;
    let namespace = veth::namespace(request)?;
    let mut result = veth::allocate(request, &config.ipam)?;
    match attach(request, &config, &namespace, &mut result) {
        Ok(()) => Ok(result),
        Err(error) => Err(veth::undo(request, error)),
    }
}

/// Everything that follows the allocation of addresses; fills the result in.
fn attach(request: &Request, config: &Config, namespace: &NetNs, result: &mut CniResult) -> Result<(), CniError> {
    if let Some(ip) = result.ips.iter().find(|ip| ip.gateway.is_none()) {
        return Err(CniError::config(format!("IPAM plugin {} gave {} no gateway", config.ipam, ip.address)));
    }
    let addresses: Vec<IpAddr> = result.ips.iter().map(|ip| ip.address.addr()).collect();
    forwarding::enable(&addresses)?;
    let mut route = Route::open().map_err(|error| CniError::io("rtnetlink", error))?;
    let identity = Identity::of(request);
    let (mac, pod_mac) = (Mac::random(), Mac::random());
    let pair = NewVeth {
        name: &identity.veth(),
        mac,
        master: None,
        peer_name: &request.ifname,
        peer_mac: pod_mac,
        peer_namespace: namespace.as_fd(),
        mtu: config.mtu,
    };
    veth::create(&mut route, &identity, &pair, Vec::new())?;
    pod::configure(namespace, &request.ifname, result, Subnet::BehindGateway)?;
    let host = veth::wait_for_carrier(&mut route, pair.name)?;
    configure_host(&mut route, pair.name, host, result)?;
    if config.ip_masq {
        let networks: Vec<_> = result.ips.iter().map(|ip| ip.address).collect();
        masquerade::add(&identity, &networks)?;
    }
    let sandbox = request.netns()?.display().to_string();
    let interface = |name: &str, mac: Mac, sandbox| Interface {
        name: name.to_owned(),
        mac: mac.to_string(),
        sandbox,
        ..Interface::default()
    };
    result.interfaces = vec![interface(pair.name, mac, String::new()), interface(&request.ifname, pod_mac, sandbox)];
    for ip in &mut result.ips {
        ip.interface = Some(POD);
    }
    options::set_dns(result, &config.dns);
    Ok(())
}

/// The host's end: the gateways' addresses, and routes to the pod's.
fn configure_host(route: &mut Route, name: &str, link: Option<Link>, result: &CniResult) -> Result<(), CniError> {
    let failed = |error: &dyn std::fmt::Display| CniError::io(format!("link {name}"), error);
    let link = link.ok_or_else(|| failed(&"it is gone"))?;
    let mut changes = Vec::new();
    for ip in &result.ips {
        changes.extend(ip.gateway.map(|gateway| Address::add(link.index, gateway.into())));
        let to_pod = NewRoute::new(ip.address.addr().into(), None, link.index);
        // In place of what leads elsewhere: the address is this pod's now, whoever had it before.
        changes.push(NewRoute { scope: Some(SCOPE_HOST), ..to_pod }.replace());
    }
    berth_effect::run("host-interface-configure", || route.change(&changes)).map_err(|error| failed(&error))
}

fn check(request: &Request) -> Result<(), CniError> {
    let config = read(request)?;
    let result = request.prev_result.as_ref().ok_or_else(|| CniError::config("required prevResult missing"))?;
    veth::ask_ipam(request)?;
    pod::check(request, result)?;
    check_host(result)?;
    let addresses: Vec<_> = result.pod_ips().map(|ip| ip.address).collect();
    if config.ip_masq && !masquerade::check(&Identity::of(request), &addresses)? {
        return Err(CniError::new(code::GENERIC, "an address of the pod is not masqueraded"));
    }
    Ok(())
}

/// The name is the result's: another implementation may have made the attachment.
fn check_host(result: &CniResult) -> Result<(), CniError> {
    let wrong = |msg: String| Err(CniError::new(code::GENERIC, msg));
    let Some(host) = result.interfaces.iter().find(|interface| interface.sandbox.is_empty()) else {
        return wrong("prevResult has no interface of the host".to_owned());
    };
    let failed = |error| CniError::io("rtnetlink", error);
    let mut route = Route::open().map_err(failed)?;
    let Some(link) = route.link(&host.name).map_err(failed)?.filter(|link| link.up) else {
        return wrong(format!("{} is missing or down", host.name));
    };
    let routes = route.routes(link.index).map_err(failed)?;
    match result.pod_ips().find(|ip| !routes.contains(&(ip.address.addr().into(), None))) {
        Some(ip) => wrong(format!("{} lacks the route to {}", host.name, ip.address.addr())),
        None => Ok(()),
    }
}

fn status(request: &Request) -> Result<(), CniError> {
    let config = read(request)?;
    veth::status(request, config.ip_masq)
}
