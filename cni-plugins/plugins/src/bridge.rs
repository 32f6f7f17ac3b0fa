//! `bridge`: a veth pair between the pod and a bridge of the host.
//!
//! The pair is made in one message with its peer already in the pod's namespace, under a name that follows from the
//! attachment's identity; what a crash left is recognised by it and replaced. Nothing waits for anything but the kernel.

use std::thread;
use std::time::{Duration, Instant};

use berth_cni::{CniError, CniResult, Command, Dns, Interface, Request, code};
use berth_net::nft::Nft;
use berth_net::{Link, Mac, NetError, NewVeth, Route};
use berth_sys::netns::{self, NetNs};
use std::os::fd::AsFd;

use crate::identity::{Identity, Wanted};
use crate::masquerade;

mod config;
mod host;
mod pod;

use config::Config;
pub use host::withdraw;

/// How long a port may take to carry once both its ends are up: the kernel's link watch works in the background.
const CARRIER: Duration = Duration::from_millis(200);

pub(crate) fn call(request: &Request) -> Result<Option<CniResult>, CniError> {
    match request.command {
        Command::Add => add(request).map(Some),
        Command::Del => del(request).map(|()| None),
        Command::Check => check(request).map(|()| None),
        Command::Gc => gc(request).map(|()| None),
        Command::Status => status(request).map(|()| None),
        Command::Version => Ok(None),
    }
}

fn add(request: &Request) -> Result<CniResult, CniError> {
    let config = Config::read(request)?;
    let path = request.netns()?;
    let namespace = netns::open(path).map_err(|error| {
        CniError::new(code::INVALID_NETNS, format!("failed to open netns \"{}\": {error}", path.display()))
    })?;
    let mut route = Route::open().map_err(|error| CniError::io("rtnetlink", error))?;
    let bridge = host::ensure_bridge(&mut route, &config)?;
    let mut result = match &config.ipam {
        Some(kind) => {
            let allocated = request.plugins.call(kind, request)?;
            allocated
                .filter(|result| !result.ips.is_empty())
                .ok_or_else(|| CniError::config(format!("IPAM plugin {kind} returned missing IP config")))
        }
        None => Ok(CniResult::default()),
    };
    if let Ok(result) = &mut result {
        let attached = attach(request, &config, &mut route, &bridge, &namespace, result);
        if let Err(error) = attached {
            return Err(undo(request, error));
        }
    }
    result
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
    let veth = NewVeth {
        name: &identity.veth(),
        mac,
        master: Some(bridge.index),
        peer_name: &request.ifname,
        peer_mac: pod_mac,
        peer_namespace: namespace.as_fd(),
        mtu: config.mtu,
    };
    create_veth(route, config, &identity, &veth)?;
    let mtu = pod::configure(namespace, &request.ifname, result)?;
    wait_for_carrier(route, veth.name)?;
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
        interface(veth.name, mac, mtu, String::new()),
        interface(&request.ifname, pod_mac, mtu, sandbox),
    ];
    if config.dns != Dns::default() {
        result.dns = config.dns.clone();
    }
    Ok(())
}

fn create_veth(route: &mut Route, config: &Config, identity: &Identity, veth: &NewVeth<'_>) -> Result<(), CniError> {
    let mut changes = vec![Link::create_veth(veth), Link::set_alias(veth.name, &identity.alias())];
    if config.hairpin {
        changes.push(Link::set_hairpin(veth.name, true));
    }
    let mut create = || berth_effect::run("veth-create", || route.change(&changes));
    let created = match create() {
        Err(error) if error.is_existing() => {
            // Ours from an earlier life: the name says so. If it was the pod's end that existed, this fails again.
            delete_link(veth.name)?;
            create()
        }
        other => other,
    };
    created.map_err(|error| match error.is_existing() {
        true => CniError::config(format!("container veth name ({}) already exists", veth.peer_name)),
        false => CniError::io("veth", error),
    })
}

/// Returns when frames pass between the pod and the bridge: before that the first one would be lost, and with it a
/// second until it is sent again.
fn wait_for_carrier(route: &mut Route, name: &str) -> Result<(), CniError> {
    let deadline = Instant::now() + CARRIER;
    loop {
        let link = route.link(name).map_err(|error| CniError::io("veth", error))?;
        if link.is_none_or(|link| link.carries) || Instant::now() >= deadline {
            return Ok(());
        }
        thread::sleep(Duration::from_micros(50));
    }
}

/// What a failed ADD made, the addresses included; the runtime's DEL would find nothing more.
fn undo(request: &Request, error: CniError) -> CniError {
    match detach(request) {
        Ok(()) => error,
        Err(undoing) => {
            let details = format!("undoing it failed too: {undoing}");
            error.with_details(details)
        }
    }
}

fn del(request: &Request) -> Result<(), CniError> {
    detach(request)
}

/// Rules, then the link, then the addresses: nobody is given an address to which something of ours still refers. All of
/// it is tried, whatever fails.
fn detach(request: &Request) -> Result<(), CniError> {
    let identity = Identity::of(request);
    let mut errors = Vec::new();
    errors.extend(masquerade::remove(&identity).err());
    match delete_link(&identity.veth()) {
        Ok(true) => {}
        Ok(false) => errors.extend(delete_in_pod(request).err()),
        Err(error) => errors.push(error),
    }
    if let Some(kind) = config::ipam_of(request) {
        let release = Request { command: Command::Del, prev_result: None, ..request.clone() };
        errors.extend(request.plugins.call(&kind, &release).err());
    }
    collect(errors)
}

/// Deletes a link of the host; whether there was one.
fn delete_link(name: &str) -> Result<bool, CniError> {
    let deleted =
        Route::open().and_then(|mut route| berth_effect::run("link-delete", || route.change(&[Link::delete(name)])));
    match deleted {
        Ok(()) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(CniError::io(format!("link {name}"), error)),
    }
}

/// An attachment that another bridge plugin made has a name that we can't know, but its end in the pod has the one asked
/// for. A namespace that is gone took the pair with it.
fn delete_in_pod(request: &Request) -> Result<(), CniError> {
    let Some(namespace) = request.netns.as_ref().and_then(|path| netns::open(path).ok()) else { return Ok(()) };
    let name = &request.ifname;
    let deleted = namespace.run(|| {
        let mut route = Route::open()?;
        match route.link(name)? {
            Some(link) if link.kind.as_deref() == Some("veth") => {
                berth_effect::run("link-delete", || route.change(&[Link::delete(name)]))
            }
            _ => Ok(()),
        }
    });
    let failed = |error: &dyn std::fmt::Display| CniError::io(format!("link {name} of the pod"), error);
    deleted.map_err(|error| failed(&error))?.or_else(|error: NetError| match error.is_not_found() {
        true => Ok(()),
        false => Err(failed(&error)),
    })
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
    let veth = route.link(&identity.veth()).map_err(failed)?;
    if veth.is_none_or(|veth| veth.master != Some(bridge.index) || !veth.up) {
        return wrong(format!("{} is missing, down or not a port of {}", identity.veth(), config.bridge));
    }
    let path = request.netns()?;
    let namespace = netns::open(path).map_err(|error| CniError::io(path.display(), error))?;
    let addresses: Vec<_> = result.pod_ips().map(|ip| ip.address).collect();
    pod::check(&namespace, &request.ifname, &addresses)?;
    if config.ip_masq && !masquerade::check(&identity, &addresses)? {
        return wrong("an address of the pod is not masqueraded".to_owned());
    }
    match &config.ipam {
        Some(kind) => request.plugins.call(kind, request).map(|_| ()),
        None => Ok(()),
    }
}

fn gc(request: &Request) -> Result<(), CniError> {
    let Some(valid) = request.valid_attachments()? else { return Ok(()) };
    let wanted = Wanted::new(&request.network, &valid);
    let mut errors = Vec::new();
    errors.extend(masquerade::gc(&wanted).err());
    match Route::open().and_then(|mut route| route.links(None)) {
        Ok(links) => {
            let stale = |link: &&Link| link.alias.as_deref().is_some_and(|alias| wanted.is_stale_alias(alias));
            for link in links.iter().filter(stale) {
                errors.extend(delete_link(&link.name).err());
            }
        }
        Err(error) => errors.push(CniError::io("rtnetlink", error)),
    }
    if let Some(kind) = config::ipam_of(request) {
        errors.extend(request.plugins.call(&kind, request).err());
    }
    collect(errors)
}

/// Whether the configuration is valid, the kernel has what it needs, and the IPAM plugin is ready.
fn status(request: &Request) -> Result<(), CniError> {
    let config = Config::read(request)?;
    let unavailable = |what: &str, error: NetError| CniError::new(code::NOT_AVAILABLE, format!("{what}: {error}"));
    Route::open().map_err(|error| unavailable("rtnetlink", error))?;
    if config.ip_masq {
        Nft::open().and_then(|mut nft| nft.generation()).map_err(|error| unavailable("nf_tables", error))?;
    }
    match &config.ipam {
        Some(kind) => request.plugins.call(kind, request).map(|_| ()),
        None => Ok(()),
    }
}

fn collect(mut errors: Vec<CniError>) -> Result<(), CniError> {
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => {
            let all = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            Err(CniError::new(errors[0].code, all))
        }
    }
}
