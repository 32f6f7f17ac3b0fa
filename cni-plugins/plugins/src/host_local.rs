//! `host-local`: addresses from ranges, one file per address in a folder.
//!
//! The folder is that of the reference plugin, byte for byte: `DATADIR/NETWORK/ADDRESS` holds `CONTAINER\r\nIFNAME`,
//! `last_reserved_ip.N` the address given out last of range set N, and `lock` is locked while somebody looks or writes.
//! What the reference plugin allocated is released here, and the other way round.

use std::path::PathBuf;

use berth_cni::{CniError, CniResult, Command, IpConfig, Request, code};

mod config;
mod range;
mod store;

use config::Ipam;
use store::Store;

pub(crate) const DEFAULT_DATA_DIR: &str = "/var/lib/cni/networks";

pub(crate) fn call(request: &Request) -> Result<Option<CniResult>, CniError> {
    match request.command {
        Command::Add => add(request, &Ipam::read(request)?).map(Some),
        Command::Del => del(request).map(|()| None),
        Command::Check => check(request).map(|()| None),
        Command::Gc => gc(request).map(|()| None),
        Command::Status => status(request).map(|()| None),
        Command::Version => Ok(None),
    }
}

fn add(request: &Request, ipam: &Ipam) -> Result<CniResult, CniError> {
    let (id, ifname) = (&*request.container_id, &*request.ifname);
    let dns = ipam.dns()?;
    let store = Store::open(&config::folder(request)?)?;
    let held = store.reservations()?;
    let mut requested = ipam.requested.clone();
    let mut chosen = Vec::new();
    for (index, set) in ipam.sets.iter().enumerate() {
        let mine = held.iter().find(|held| held.is_of(id, ifname) && set.contains(held.address));
        if let Some(mine) = mine {
            let address = mine.address;
            return Err(refused(format!("{address} has been allocated to {id}, duplicate allocation is not allowed")));
        }
        let taken = |address| held.iter().any(|held| held.address == address);
        let wanted = requested.iter().position(|address| set.contains(*address)).map(|place| requested.remove(place));
        let found = match wanted {
            Some(address) if set.is_gateway(address) => {
                return Err(refused(format!("requested ip {address} is subnet's gateway")));
            }
            Some(address) if taken(address) => {
                let set = set.to_string();
                return Err(refused(format!("requested IP address {address} is not available in range set {set}")));
            }
            Some(address) => set.describe(address),
            None => set.after(store.last_reserved(index)).find(|free| !taken(free.address.addr())),
        };
        let found = found.ok_or_else(|| refused(format!("no IP addresses available in range set: {set}")))?;
        chosen.push((index, found));
    }
    if !requested.is_empty() {
        let left = requested.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        return Err(refused(format!("failed to allocate all requested IPs: {left}")));
    }
    // Everything is decided before anything is written: a range set that is exhausted leaves no trace of the others.
    for (index, found) in &chosen {
        if let Err(error) = store.reserve(found.address.addr(), id, ifname, *index) {
            store.release(&store.reservations()?, |held| held.is_of(id, ifname))?;
            return Err(error);
        }
    }
    let ip = |free: range::Free| IpConfig { address: free.address, gateway: Some(free.gateway), interface: None };
    Ok(CniResult {
        ips: chosen.into_iter().map(|(_, free)| ip(free)).collect(),
        routes: ipam.routes.clone(),
        dns,
        ..CniResult::default()
    })
}

/// Needs no valid ranges: what was given out is given back also after the administrator broke the configuration.
fn del(request: &Request) -> Result<(), CniError> {
    let Some(store) = Store::open_existing(&config::folder(request)?)? else { return Ok(()) };
    store.release(&store.reservations()?, |held| held.is_of(&request.container_id, &request.ifname))
}

fn check(request: &Request) -> Result<(), CniError> {
    let store = Store::open(&config::folder(request)?)?;
    let held = store.reservations()?;
    if held.iter().any(|held| held.is_of(&request.container_id, &request.ifname)) {
        return Ok(());
    }
    Err(refused(format!("host-local: Failed to find address added by container {}", request.container_id)))
}

/// Releases what no valid attachment holds, and reservations that a crash left without a holder.
fn gc(request: &Request) -> Result<(), CniError> {
    let Some(valid) = request.valid_attachments()? else { return Ok(()) };
    let Some(store) = Store::open_existing(&config::folder(request)?)? else { return Ok(()) };
    let wanted = |held: &store::Reservation| valid.iter().any(|valid| held.is_of(&valid.container_id, &valid.ifname));
    store.release(&store.reservations()?, |held| !wanted(held))
}

/// Whether the configuration is valid and the folder usable. A range that is full is a matter of its pods, not a reason to
/// take the node out of service.
fn status(request: &Request) -> Result<(), CniError> {
    Ipam::read(request)?;
    match Store::open(&config::folder(request)?).and_then(|store| store.reservations()) {
        Ok(_) => Ok(()),
        Err(error) => Err(CniError { code: code::NOT_AVAILABLE, ..error }),
    }
}

/// Removes what the plugin keeps for a network while nothing is reserved; whether nothing was.
///
/// # Errors
/// What the file system answers.
pub(crate) fn withdraw(data_dir: Option<PathBuf>, network: &str) -> Result<bool, CniError> {
    let data_dir = data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into());
    let Some(store) = Store::open_existing(&data_dir.join(network))? else { return Ok(true) };
    store.remove_unless_used()
}

/// An allocation that is not possible: the code that the reference plugin answers with.
fn refused(msg: String) -> CniError {
    CniError::new(code::GENERIC, msg)
}

#[cfg(test)]
mod tests;
