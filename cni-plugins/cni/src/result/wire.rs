//! The forms that results had through the versions of the specification.
//!
//! 0.1.0 and 0.2.0 know one address per family, each with its routes (`ip4`, `ip6`). 0.3.0 to 0.4.0 have lists, and each
//! address says its family. 1.0.0 dropped the family; 1.1.0 added keys to interfaces and routes.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Version;
use crate::result::{CniResult, Dns, Interface, IpConfig, Route};

#[derive(Serialize, Deserialize)]
struct Single {
    #[serde(rename = "cniVersion", default)]
    cni_version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip4: Option<SingleIp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip6: Option<SingleIp>,
    #[serde(default)]
    dns: Dns,
}

#[derive(Serialize, Deserialize)]
struct SingleIp {
    ip: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
}

#[derive(Serialize, Deserialize)]
struct Lists {
    #[serde(rename = "cniVersion", default)]
    cni_version: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    interfaces: Vec<Interface>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ips: Vec<ListedIp>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dns: Option<Dns>,
}

#[derive(Serialize, Deserialize)]
struct ListedIp {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(flatten)]
    ip: IpConfig,
}

pub(super) fn read(value: &Value, version: Version) -> serde_json::Result<CniResult> {
    if version < Version::V0_3_0 {
        let Single { ip4, ip6, dns, .. } = Single::deserialize(value)?;
        let mut result = CniResult { dns, ..CniResult::default() };
        for single in [ip4, ip6].into_iter().flatten() {
            result.ips.push(IpConfig { address: single.ip, gateway: single.gateway, interface: None });
            result.routes.extend(single.routes);
        }
        return Ok(result);
    }
    let Lists { interfaces, ips, routes, dns, .. } = Lists::deserialize(value)?;
    let ips = ips.into_iter().map(|listed| listed.ip).collect();
    Ok(CniResult { interfaces, ips, routes, dns: dns.unwrap_or_default() })
}

pub(super) fn write(result: &CniResult, version: Version) -> serde_json::Result<Value> {
    if version < Version::V0_3_0 {
        return serde_json::to_value(Single {
            cni_version: version.to_string(),
            ip4: single(result, |address| address.is_ipv4()),
            ip6: single(result, |address| address.is_ipv6()),
            dns: result.dns.clone(),
        });
    }
    let ips = result.ips.iter().map(|ip| ListedIp {
        version: (version < Version::V1_0_0).then(|| if ip.address.addr().is_ipv4() { "4" } else { "6" }.to_owned()),
        ip: ip.clone(),
    });
    let empty_dns_is_left_out = version >= Version::V1_0_0 && result.dns.is_empty();
    serde_json::to_value(Lists {
        cni_version: version.to_string(),
        interfaces: result.interfaces.iter().map(|interface| known_interface(interface, version)).collect(),
        ips: ips.collect(),
        routes: result.routes.iter().map(|route| known_route(route, version)).collect(),
        dns: (!empty_dns_is_left_out).then(|| result.dns.clone()),
    })
}

fn single(result: &CniResult, family: impl Fn(IpAddr) -> bool) -> Option<SingleIp> {
    let ip = result.ips.iter().find(|ip| family(ip.address.addr()))?;
    let routes = result.routes.iter().filter(|route| family(route.dst.addr()));
    Some(SingleIp {
        ip: ip.address,
        gateway: ip.gateway,
        routes: routes.map(|route| Route::new(route.dst, route.gw)).collect(),
    })
}

fn known_interface(interface: &Interface, version: Version) -> Interface {
    if version >= Version::V1_1_0 {
        return interface.clone();
    }
    Interface {
        name: interface.name.clone(),
        mac: interface.mac.clone(),
        sandbox: interface.sandbox.clone(),
        ..Interface::default()
    }
}

fn known_route(route: &Route, version: Version) -> Route {
    if version >= Version::V1_1_0 { route.clone() } else { Route::new(route.dst, route.gw) }
}
