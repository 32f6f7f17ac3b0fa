//! `bridge`: a veth pair between the pod and a bridge of the host.

use std::os::fd::AsFd;

use berth_cni::{CniError, CniResult, Command, Interface, Request, code};
use berth_net::{Link, Mac, NewVeth, Route};
use berth_sys::netns::NetNs;

use crate::identity::Identity;
use crate::pod::{self, Subnet};
use crate::{masquerade, options, veth};

mod config;
mod host;

use config::Config;
pub use host::withdraw;

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

fn add(request: &Request) -> Result<CniResult, CniError> {
    let config = Config::read(request)?;
    let namespace = veth::namespace(request)?;
    let mut route = Route::open().map_err(|error| CniError::io("rtnetlink", error))?;
    let bridge = host::ensure_bridge(&mut route, &config)?;
    let mut result = match &config.ipam {
        Some(kind) => veth::allocate(request, kind)?,
        None => CniResult::default(),
    };
    match attach(request, &config, &mut route, &bridge, &namespace, &mut result) {
        Ok(()) => Ok(result),
        Err(error) => Err(veth::undo(request, error)),
    }
}

/// Everything that follows the allocation of addresses; fills the result in.
fn attach(
    request: &Request,
    config: &Config,
    route: &mut Route,
    bridge: &Link,
    namespace: &NetNs,
    result: &mut CniResult,
) -> Result<(), CniError> {
    config.complete(result);
    host::ensure_gateways(route, config, bridge, result)?;
    let identity = Identity::of(request);
    let (mac, pod_mac) = (Mac::random(), config.mac.unwrap_or_else(Mac::random));
    let pair = NewVeth {
        name: &identity.veth(),
        mac,
        master: Some(bridge.index),
        peer_name: &request.ifname,
        peer_mac: pod_mac,
        peer_namespace: namespace.as_fd(),
        mtu: config.mtu,
    };
    let hairpin = config.hairpin.then(|| Link::set_hairpin(pair.name, true));
    veth::create(route, &identity, &pair, hairpin.into_iter().collect())?;
    let mtu = pod::configure(namespace, &request.ifname, result, Subnet::OnLink)?;
    veth::wait_for_carrier(route, pair.name)?;
    if config.ip_masq {
        let addresses: Vec<_> = result.ips.iter().map(|ip| ip.address).collect();
        masquerade::add(&identity, &addresses)?;
    }
    let sandbox = request.netns()?.display().to_string();
    let interface = |name: &str, mac: Mac, mtu, sandbox| Interface {
        name: name.to_owned(),
        mac: mac.to_string(),
        mtu: Some(mtu),
        sandbox,
        ..Interface::default()
    };
    result.interfaces = vec![
        interface(&bridge.name, bridge.mac.unwrap_or(Mac([0; 6])), bridge.mtu, String::new()),
        interface(pair.name, mac, mtu, String::new()),
        interface(&request.ifname, pod_mac, mtu, sandbox),
    ];
    options::set_dns(result, &config.dns);
    Ok(())
}

fn check(request: &Request) -> Result<(), CniError> {
    let config = Config::read(request)?;
    let result = request.prev_result.as_ref().ok_or_else(|| CniError::config("required prevResult missing"))?;
    let identity = Identity::of(request);
    let wrong = |msg: String| Err(CniError::new(code::GENERIC, msg));
    let failed = |error| CniError::io("rtnetlink", error);
    let mut route = Route::open().map_err(failed)?;
    let Some(bridge) = route.link(&config.bridge).map_err(failed)?.filter(|link| link.up) else {
        return wrong(format!("bridge {} is missing or down", config.bridge));
    };
    let port = route.link(&identity.veth()).map_err(failed)?;
    if port.is_none_or(|port| port.master != Some(bridge.index) || !port.up) {
        return wrong(format!("{} is missing, down or not a port of {}", identity.veth(), config.bridge));
    }
    pod::check(request, result)?;
    let addresses: Vec<_> = result.pod_ips().map(|ip| ip.address).collect();
    if config.ip_masq && !masquerade::check(&identity, &addresses)? {
        return wrong("an address of the pod is not masqueraded".to_owned());
    }
    veth::ask_ipam(request)
}

/// Whether the configuration is valid, the kernel has what it needs, and the IPAM plugin is ready.
fn status(request: &Request) -> Result<(), CniError> {
    let config = Config::read(request)?;
    veth::status(request, config.ip_masq)
}
