//! A veth pair between the host and a pod, from its making to its end: what `bridge` and `ptp` have in common.
//!
//! The pair is made in one message with its peer already in the pod's namespace, under a name that follows from the
//! attachment's identity; what a crash left is recognised by it and replaced. Its end needs nothing but the identity.

use std::thread;
use std::time::{Duration, Instant};

use berth_cni::{CniError, CniResult, Command, Request, code};
use berth_net::nft::Nft;
use berth_net::{Change, Link, NetError, NewVeth, Route, sysctl};
use berth_sys::netns::{self, NetNs};

use crate::identity::{Identity, Wanted};
use crate::masquerade;
use crate::options::ipam_of;

/// How long a link may take to carry once both its ends are up: the kernel's link watch works in the background.
const CARRIER: Duration = Duration::from_millis(200);

/// The pod's namespace of an ADD.
pub(crate) fn namespace(request: &Request) -> Result<NetNs, CniError> {
    let path = request.netns()?;
    netns::open(path).map_err(|error| {
        CniError::new(code::INVALID_NETNS, format!("failed to open netns \"{}\": {error}", path.display()))
    })
}

/// What the IPAM plugin allocates: at least one address.
pub(crate) fn allocate(request: &Request, ipam: &str) -> Result<CniResult, CniError> {
    match request.plugins.call(ipam, request)? {
        Some(result) if !result.ips.is_empty() => Ok(result),
        _ => {
            let error = CniError::config(format!("IPAM plugin {ipam} returned missing IP config"));
            Err(with_undoing(error, release(request)))
        }
    }
}

/// Makes the pair and what else is to be changed of the host's end, which is `veth.name`.
pub(crate) fn create(
    route: &mut Route,
    identity: &Identity,
    veth: &NewVeth<'_>,
    more: Vec<Change>,
) -> Result<(), CniError> {
    let mut changes = vec![Link::create_veth(veth), Link::set_alias(veth.name, &identity.alias())];
    changes.extend(more);
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
    })?;
    // The pod's end is still down: no pod can advertise itself as the host's router. Without IPv6 there is no such setting.
    let _ = sysctl::write(&sysctl::of_link("ipv6", veth.name, "accept_ra"), "0");
    Ok(())
}

/// Returns when frames pass between the pod and the host's end: before that the first one would be lost, and with it a
/// second until it is sent again. The host's end as it was seen last; `None` when it is gone.
pub(crate) fn wait_for_carrier(route: &mut Route, name: &str) -> Result<Option<Link>, CniError> {
    let deadline = Instant::now() + CARRIER;
    loop {
        let link = route.link(name).map_err(|error| CniError::io("veth", error))?;
        if link.as_ref().is_none_or(|link| link.carries) || Instant::now() >= deadline {
            return Ok(link);
        }
        thread::sleep(Duration::from_micros(50));
    }
}

/// What a failed ADD made, the addresses included; the runtime's DEL would find nothing more.
pub(crate) fn undo(request: &Request, error: CniError) -> CniError {
    with_undoing(error, detach(request))
}

fn with_undoing(error: CniError, undone: Result<(), CniError>) -> CniError {
    match undone {
        Ok(()) => error,
        Err(undoing) => {
            let details = format!("undoing it failed too: {undoing}");
            error.with_details(details)
        }
    }
}

/// DEL: rules, then the link, then the addresses, so that nobody is given an address to which something of ours still
/// refers. All of it is tried, whatever fails.
pub(crate) fn detach(request: &Request) -> Result<(), CniError> {
    let identity = Identity::of(request);
    let mut errors = Vec::new();
    errors.extend(masquerade::remove(&identity).err());
    match delete_link(&identity.veth()) {
        Ok(true) => {}
        Ok(false) => errors.extend(delete_in_pod(request).err()),
        Err(error) => errors.push(error),
    }
    errors.extend(release(request).err());
    collect(errors)
}

/// Gives the addresses back.
fn release(request: &Request) -> Result<(), CniError> {
    let Some(kind) = ipam_of(request) else { return Ok(()) };
    let release = Request { command: Command::Del, prev_result: None, ..request.clone() };
    request.plugins.call(&kind, &release).map(|_| ())
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

/// An attachment that another plugin made has a name that we can't know, but its end in the pod has the one asked for. A
/// namespace that is gone took the pair with it.
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

/// GC: the rules, links and addresses of the network's attachments that are not wanted any more.
pub(crate) fn gc(request: &Request) -> Result<(), CniError> {
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
    if let Some(kind) = ipam_of(request) {
        errors.extend(request.plugins.call(&kind, request).err());
    }
    collect(errors)
}

/// STATUS of a valid configuration: whether the kernel has what it needs, and the IPAM plugin is ready.
pub(crate) fn status(request: &Request, masquerades: bool) -> Result<(), CniError> {
    let unavailable = |what: &str, error: NetError| CniError::new(code::NOT_AVAILABLE, format!("{what}: {error}"));
    Route::open().map_err(|error| unavailable("rtnetlink", error))?;
    if masquerades {
        Nft::open().and_then(|mut nft| nft.generation()).map_err(|error| unavailable("nf_tables", error))?;
    }
    ask_ipam(request)
}

/// Lets the IPAM plugin, if there is one, answer the same question.
pub(crate) fn ask_ipam(request: &Request) -> Result<(), CniError> {
    match ipam_of(request) {
        Some(kind) => request.plugins.call(&kind, request).map(|_| ()),
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
