//! The configuration of a bridge network.

use std::net::IpAddr;

use berth_cni::{CniError, CniResult, Dns, Request, Route};
use berth_net::Mac;
use ipnet::IpNet;
use serde::Deserialize;

use crate::options;

/// The checked configuration.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) bridge: String,
    pub(super) is_gateway: bool,
    is_default_gateway: bool,
    pub(super) force_address: bool,
    pub(super) ip_masq: bool,
    pub(super) hairpin: bool,
    pub(super) promiscuous: bool,
    pub(super) mtu: Option<u32>,
    /// The IPAM plugin; none means no addresses.
    pub(super) ipam: Option<String>,
    pub(super) dns: Dns,
    /// The pod's hardware address, when one was asked for.
    pub(super) mac: Option<Mac>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    bridge: String,
    #[serde(default)]
    is_gateway: bool,
    #[serde(default)]
    is_default_gateway: bool,
    #[serde(default)]
    force_address: bool,
    #[serde(default)]
    ip_masq: bool,
    #[serde(default)]
    hairpin_mode: bool,
    #[serde(default)]
    promisc_mode: bool,
    #[serde(default)]
    mtu: u32,
    #[serde(default)]
    dns: Option<Dns>,
}

/// Options of the reference plugin that change what is built, and that this one does not have.
const UNSUPPORTED: [&str; 6] =
    ["vlan", "vlanTrunk", "macspoofchk", "enabledad", "disableContainerInterface", "portIsolation"];

const DEFAULT_BRIDGE: &str = "cni0";

impl Config {
    pub(super) fn read(request: &Request) -> Result<Self, CniError> {
        for field in UNSUPPORTED {
            if request.config.get(field).is_some_and(options::is_set) {
                return Err(CniError::unsupported(field, "this bridge plugin does not have it"));
            }
        }
        options::check_masquerade_backend(request)?;
        let raw: Raw = request.config()?;
        if raw.hairpin_mode && raw.promisc_mode {
            return Err(CniError::config("cannot set hairpin mode and promiscuous mode at the same time"));
        }
        Ok(Self {
            bridge: if raw.bridge.is_empty() { DEFAULT_BRIDGE.to_owned() } else { raw.bridge },
            is_gateway: raw.is_gateway || raw.is_default_gateway,
            is_default_gateway: raw.is_default_gateway,
            force_address: raw.force_address,
            ip_masq: raw.ip_masq,
            hairpin: raw.hairpin_mode,
            promiscuous: raw.promisc_mode,
            mtu: (raw.mtu > 0).then_some(raw.mtu),
            ipam: options::ipam_of(request),
            dns: raw.dns.unwrap_or_default(),
            mac: mac_of(request)?,
        })
    }

    /// Fills in what follows from the addresses: the pod's interface, gateways, default routes.
    pub(super) fn complete(&self, result: &mut CniResult) {
        for ip in &mut result.ips {
            ip.interface = Some(2);
            if ip.gateway.is_none() && self.is_gateway {
                ip.gateway = first_of(ip.address);
            }
        }
        if !self.is_default_gateway {
            return;
        }
        for v4 in [true, false] {
            let default = IpNet::new(if v4 { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) }, 0).ok();
            let gateway = result.ips.iter().find(|ip| ip.address.addr().is_ipv4() == v4).and_then(|ip| ip.gateway);
            if let (Some(default), Some(gateway)) = (default, gateway)
                && !result.routes.iter().any(|route| route.dst == default && route.gw.is_some())
            {
                result.routes.push(Route::new(default, Some(gateway)));
            }
        }
    }
}

/// Runtime configuration before configured arguments before `CNI_ARGS`.
fn mac_of(request: &Request) -> Result<Option<Mac>, CniError> {
    let in_config = |path: &[&str]| {
        let mut value = request.config.get(path[0])?;
        for key in &path[1..] {
            value = value.get(key)?;
        }
        value.as_str().filter(|text| !text.is_empty())
    };
    let text = in_config(&["runtimeConfig", "mac"])
        .or_else(|| in_config(&["args", "cni", "mac"]))
        .or_else(|| request.arg("MAC").filter(|text| !text.is_empty()));
    text.map(|text| text.parse().map_err(CniError::config)).transpose()
}

/// The first address of a network after the network's own.
fn first_of(net: IpNet) -> Option<IpAddr> {
    match net {
        IpNet::V4(net) => net.network().to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpNet::V6(net) => net.network().to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}
