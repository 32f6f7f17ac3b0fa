//! The host's side: the bridge, its addresses, forwarding.
//!
//! A bridge that this plugin made says so in its alias, together with the settings of the host that it changed; so
//! [`withdraw`] can put everything back, and the record goes wherever the bridge goes.

use berth_cni::{CniError, CniResult};
use berth_net::{Address, Link, Mac, NetError, Route, sysctl};
use ipnet::{IpNet, IpNet::V4, IpNet::V6};

use super::config::Config;
use crate::forwarding;

/// The alias of a bridge that we made; after it, what to restore: `net/ipv4/ip_forward=0`.
const ALIAS: &str = "berth-cni-bridge";

/// The bridge of the configuration, up.
pub(super) fn ensure_bridge(route: &mut Route, config: &Config) -> Result<Link, CniError> {
    let name = &config.bridge;
    let failed = |error: NetError| CniError::io(format!("bridge {name}"), error);
    let bridge = match route.link(name).map_err(failed)? {
        Some(link) => link,
        None => create(route, config)?,
    };
    if bridge.kind.as_deref() != Some("bridge") {
        return Err(CniError::config(format!("\"{name}\" already exists but is not a bridge")));
    }
    let mut changes = Vec::new();
    if !bridge.up {
        changes.push(Link::set_up(bridge.index, true));
    }
    if config.promiscuous && !bridge.promiscuous {
        changes.push(Link::set_promiscuous(bridge.index));
    }
    if !changes.is_empty() {
        berth_effect::run("bridge-up", || route.change(&changes)).map_err(failed)?;
    }
    Ok(bridge)
}

fn create(route: &mut Route, config: &Config) -> Result<Link, CniError> {
    let name = &config.bridge;
    let failed = |error: NetError| CniError::io(format!("bridge {name}"), error);
    let mut alias = ALIAS.to_owned();
    if config.is_gateway {
        for setting in [forwarding::V4, forwarding::V6] {
            if let Ok(value) = sysctl::read(setting)
                && value == "0"
            {
                alias += &format!(" {setting}={value}");
            }
        }
    }
    let changes = [Link::create_bridge(name, Mac::random(), config.mtu), Link::set_alias(name, &alias)];
    match berth_effect::run("bridge-create", || route.change(&changes)) {
        Ok(()) => {
            // The routes of this link are ours to make. Without IPv6 there is no such setting.
            let _ = sysctl::write(&sysctl::of_link("ipv6", name, "accept_ra"), "0");
        }
        // Somebody else was faster.
        Err(error) if error.is_existing() => {}
        Err(error) => return Err(failed(error)),
    }
    let made = route.link(name).map_err(failed)?;
    made.ok_or_else(|| CniError::io(format!("bridge {name}"), "it was deleted at once"))
}

/// Gives the bridge the pods' gateway addresses, and makes the host forward.
pub(super) fn ensure_gateways(
    route: &mut Route,
    config: &Config,
    bridge: &Link,
    result: &CniResult,
) -> Result<(), CniError> {
    if !config.is_gateway {
        return Ok(());
    }
    let failed = |error: NetError| CniError::io(format!("bridge {}", bridge.name), error);
    let held = route.addresses(bridge.index).map_err(failed)?;
    for ip in &result.ips {
        let Some(gateway) = ip.gateway.and_then(|gateway| IpNet::new(gateway, ip.address.prefix_len()).ok()) else {
            continue;
        };
        if held.contains(&gateway) {
            continue;
        }
        let in_the_way: Vec<_> = held.iter().filter(|held| is_in_the_way(**held, gateway)).collect();
        if !in_the_way.is_empty() && !config.force_address {
            let name = &bridge.name;
            return Err(CniError::config(format!("\"{name}\" already has an IP address different from {gateway}")));
        }
        let mut changes: Vec<_> = in_the_way.iter().map(|held| Address::delete(bridge.index, **held)).collect();
        changes.push(Address::add(bridge.index, gateway));
        // A bridge without a pinned hardware address takes that of one of its ports, and changes it as they come and go.
        changes.extend(bridge.mac.map(|mac| Link::set_mac(bridge.index, mac)));
        match berth_effect::run("bridge-address-add", || route.change(&changes)) {
            Err(error) if !error.is_existing() => return Err(failed(error)),
            _ => {}
        }
    }
    forwarding::enable(&result.ips.iter().map(|ip| ip.address.addr()).collect::<Vec<_>>())
}

/// As in the reference plugin: one IPv4 address, and IPv6 addresses whose subnets do not overlap.
fn is_in_the_way(held: IpNet, wanted: IpNet) -> bool {
    match (held, wanted) {
        (V4(_), V4(_)) => true,
        (V6(held), V6(wanted)) => held.contains(&wanted.addr()) || wanted.contains(&held.addr()),
        _ => false,
    }
}

/// Deletes a bridge that this plugin made, once it has no ports, and restores the settings that it changed. Whether the
/// bridge is gone: one that somebody else made, or that is in use, stays.
///
/// # Errors
/// What the kernel answers.
pub fn withdraw(name: &str) -> Result<bool, CniError> {
    let failed = |error: NetError| CniError::io(format!("bridge {name}"), error);
    let mut route = Route::open().map_err(failed)?;
    let Some(bridge) = route.link(name).map_err(failed)? else { return Ok(true) };
    let Some(record) = bridge.alias.as_deref().and_then(|alias| alias.strip_prefix(ALIAS)) else { return Ok(false) };
    if !route.links(Some(bridge.index)).map_err(failed)?.is_empty() {
        return Ok(false);
    }
    let links = route.links(None).map_err(failed)?;
    let heir = links
        .iter()
        .find(|link| link.index != bridge.index && link.alias.as_deref().is_some_and(|alias| alias.starts_with(ALIAS)));
    // The last one restores; before that the record is handed on.
    match heir {
        Some(Link { name: heir, alias: Some(alias), .. }) if !alias.contains(record) => {
            let change = Link::set_alias(heir, &format!("{alias}{record}"));
            berth_effect::run("bridge-record", || route.change(&[change])).map_err(failed)?;
        }
        Some(_) => {}
        None => {
            for (setting, value) in record.split_whitespace().filter_map(|pair| pair.split_once('=')) {
                if [forwarding::V4, forwarding::V6].contains(&setting) {
                    let failed = |error| CniError::io(setting, error);
                    berth_effect::run("sysctl-write", || sysctl::write(setting, value)).map_err(failed)?;
                }
            }
        }
    }
    match berth_effect::run("bridge-delete", || route.change(&[Link::delete(name)])) {
        Err(error) if !error.is_not_found() => Err(failed(error)),
        _ => Ok(true),
    }
}
