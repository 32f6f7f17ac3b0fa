//! The configuration: ranges from three places, requested addresses from three more.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use berth_cni::{CniError, Dns, Request, Route, Version};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::DEFAULT_DATA_DIR;
use super::range::{RangeSet, RawRange};

/// The checked configuration.
#[derive(Debug)]
pub(super) struct Ipam {
    /// One address is given out of each.
    pub(super) sets: Vec<RangeSet>,
    pub(super) routes: Vec<Route>,
    pub(super) requested: Vec<IpAddr>,
    resolv_conf: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Raw {
    ipam: Option<RawIpam>,
    #[serde(rename = "runtimeConfig", default)]
    runtime: Runtime,
    #[serde(default)]
    args: Option<Arguments>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawIpam {
    #[serde(flatten)]
    single: RawRange,
    #[serde(default)]
    ranges: Option<Vec<Vec<RawRange>>>,
    #[serde(default)]
    routes: Option<Vec<Route>>,
    resolv_conf: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Runtime {
    #[serde(default)]
    ip_ranges: Vec<Vec<RawRange>>,
    /// With or without a prefix length.
    #[serde(default)]
    ips: Vec<String>,
}

#[derive(Default, Deserialize)]
struct Arguments {
    #[serde(default)]
    cni: Option<CniArguments>,
}

#[derive(Default, Deserialize)]
struct CniArguments {
    #[serde(default)]
    ips: Vec<String>,
}

impl Ipam {
    pub(super) fn read(request: &Request) -> Result<Self, CniError> {
        let Raw { ipam, runtime, args } = request.config()?;
        let ipam = ipam.ok_or_else(|| CniError::config("IPAM config missing 'ipam' key"))?;
        let mut ranges = runtime.ip_ranges;
        if ipam.single.subnet.is_some() {
            ranges.push(vec![ipam.single]);
        }
        ranges.extend(ipam.ranges.unwrap_or_default());
        if ranges.is_empty() {
            return Err(CniError::config("no IP ranges specified"));
        }
        let invalid = |index, reason| CniError::config(format!("invalid range set {index}: {reason}"));
        let sets = ranges.iter().enumerate();
        let sets = sets.map(|(index, set)| RangeSet::new(set).map_err(|reason| invalid(index, reason)));
        let sets = sets.collect::<Result<Vec<_>, _>>()?;
        check_sets(&sets, request.cni_version)?;
        let arguments = args.unwrap_or_default().cni.unwrap_or_default();
        let texts = request.arg("IP").into_iter().map(str::to_owned).chain(arguments.ips).chain(runtime.ips);
        Ok(Self {
            sets,
            routes: ipam.routes.unwrap_or_default(),
            requested: texts.map(|text| address(&text)).collect::<Result<_, _>>()?,
            resolv_conf: ipam.resolv_conf.filter(|path| !path.as_os_str().is_empty()),
        })
    }

    /// What `resolvConf` says.
    pub(super) fn dns(&self) -> Result<Dns, CniError> {
        let Some(path) = &self.resolv_conf else { return Ok(Dns::default()) };
        let text = fs::read_to_string(path).map_err(|error| CniError::io(path.display(), error))?;
        let mut dns = Dns::default();
        for line in text.lines() {
            let mut words = line.split_whitespace().map(str::to_owned);
            match (words.next().as_deref(), words) {
                (Some("nameserver"), mut words) => dns.nameservers.extend(words.next()),
                (Some("domain"), mut words) => dns.domain = words.next().unwrap_or_default(),
                (Some("search"), words) => dns.search = words.collect(),
                (Some("options"), words) => dns.options.extend(words),
                _ => {}
            }
        }
        Ok(dns)
    }
}

/// The network's folder of reservations.
pub(super) fn folder(request: &Request) -> Result<PathBuf, CniError> {
    let data_dir = request.config.get("ipam").and_then(|ipam| ipam.get("dataDir"));
    match data_dir {
        None | Some(Value::Null) => Ok(Path::new(DEFAULT_DATA_DIR).join(&request.network)),
        Some(Value::String(dir)) if dir.is_empty() => Ok(Path::new(DEFAULT_DATA_DIR).join(&request.network)),
        Some(Value::String(dir)) => Ok(Path::new(dir).join(&request.network)),
        Some(_) => Err(CniError::config("field \"ipam.dataDir\" must be a path")),
    }
}

fn check_sets(sets: &[RangeSet], version: Version) -> Result<(), CniError> {
    for (index, set) in sets.iter().enumerate() {
        if let Some(other) = sets[..index].iter().position(|other| set.overlaps(other)) {
            return Err(CniError::config(format!("range set {other} overlaps with {index}")));
        }
    }
    let v4 = sets.iter().filter(|set| set.is_ipv4()).count();
    if version < Version::V0_3_0 && (v4 > 1 || sets.len() - v4 > 1) {
        let reason = format!("CNI version {version} does not support more than 1 address per family");
        return Err(CniError::config(reason));
    }
    Ok(())
}

fn address(text: &str) -> Result<IpAddr, CniError> {
    let parsed = text.parse::<IpAddr>().or_else(|_| text.parse::<IpNet>().map(|net| net.addr()));
    parsed.map_err(|_| CniError::config(format!("requested address \"{text}\" is not an address")))
}
