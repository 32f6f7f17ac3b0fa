//! `portmap`: ports of the host lead to the pod. It is chained behind the plugin that gave the pod its addresses.

use std::net::IpAddr;

use berth_cni::{CniError, CniResult, Command, PortMapping, Request, code};
use berth_net::nft::Nft;
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use crate::hostport::{self, HostPort, SourceNat};
use crate::identity::{Identity, Wanted};

const DEFAULT_MARK_BIT: u64 = 13;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    snat: Option<bool>,
    #[serde(default)]
    masq_all: bool,
    #[serde(default)]
    runtime_config: Runtime,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Runtime {
    #[serde(default)]
    port_mappings: Option<Vec<PortMapping>>,
}

/// What is to be made for one attachment.
struct Plan {
    ports: Vec<HostPort>,
    nat: SourceNat,
}

pub(crate) fn call(request: &Request) -> Result<Option<CniResult>, CniError> {
    let identity = Identity::of(request);
    match request.command {
        Command::Add => add(request, &identity).map(Some),
        // By identity alone: whatever the configuration and the result have become, nothing is left.
        Command::Del => hostport::remove(&identity).map(|()| None),
        Command::Check => check(request, &identity).map(|()| None),
        Command::Gc => {
            if let Some(valid) = request.valid_attachments()? {
                hostport::gc(&Wanted::new(&request.network, &valid))?;
            }
            Ok(None)
        }
        Command::Status => status(request).map(|()| None),
        Command::Version => Ok(None),
    }
}

fn add(request: &Request, identity: &Identity) -> Result<CniResult, CniError> {
    let plan = read(request)?;
    let result = previous(request)?;
    for (pod, ports) in by_family(&plan, result) {
        let localnet = if needs_localnet(&plan, pod, &ports) { host_link(result) } else { None };
        match hostport::add(identity, pod, &ports, plan.nat, localnet) {
            Ok(Ok(())) => {}
            Ok(Err(conflict)) => {
                hostport::remove(identity)?;
                let HostPort { port, protocol, .. } = conflict.port;
                let holder = conflict.holder;
                let msg = format!("host port {port}/{} is already held by \"{holder}\"", protocol_name(protocol));
                return Err(CniError::new(code::GENERIC, msg));
            }
            Err(error) => {
                hostport::remove(identity)?;
                return Err(error);
            }
        }
    }
    Ok(result.clone())
}

fn check(request: &Request, identity: &Identity) -> Result<(), CniError> {
    let plan = read(request)?;
    for (pod, ports) in by_family(&plan, previous(request)?) {
        if !hostport::check(identity, pod, &ports)? {
            return Err(CniError::new(code::GENERIC, format!("host ports of {} do not lead to the pod", pod.addr())));
        }
    }
    Ok(())
}

/// Whether the configuration is valid and the kernel has nf_tables.
fn status(request: &Request) -> Result<(), CniError> {
    read(request)?;
    let usable = Nft::open().and_then(|mut nft| nft.generation());
    usable.map(|_| ()).map_err(|error| CniError::new(code::NOT_AVAILABLE, format!("nf_tables: {error}")))
}

fn previous(request: &Request) -> Result<&CniResult, CniError> {
    request.prev_result.as_ref().ok_or_else(|| CniError::config("must be called as a chained plugin"))
}

fn read(request: &Request) -> Result<Plan, CniError> {
    for field in ["conditionsV4", "conditionsV6", "externalSetMarkChain"] {
        let value = request.config.get(field);
        if value.is_some_and(|value| !value.is_null() && *value != Value::Array(Vec::new())) {
            return Err(CniError::unsupported(field, "host ports are elements of nf_tables maps"));
        }
    }
    match request.config.get("backend").and_then(Value::as_str) {
        None | Some("" | "nftables") => {}
        Some(_) => return Err(CniError::unsupported("backend", "only \"nftables\" is")),
    }
    match request.config.get("markMasqBit").filter(|bit| !bit.is_null()) {
        Some(bit) if bit.as_u64() != Some(DEFAULT_MARK_BIT) => {
            return Err(CniError::unsupported("markMasqBit", "the mark is bit 13"));
        }
        _ => {}
    }
    let Raw { snat, masq_all, runtime_config } = request.config()?;
    let mappings = runtime_config.port_mappings.unwrap_or_default();
    Ok(Plan {
        ports: mappings.iter().filter(|mapping| mapping.host_port != 0).map(host_port).collect::<Result<_, _>>()?,
        nat: match (snat.unwrap_or(true), masq_all) {
            (false, _) => SourceNat::Never,
            (true, false) => SourceNat::Needed,
            (true, true) => SourceNat::Always,
        },
    })
}

fn host_port(mapping: &PortMapping) -> Result<HostPort, CniError> {
    if mapping.container_port == 0 {
        return Err(CniError::config(format!("invalid container port number for host port {}", mapping.host_port)));
    }
    let protocol = match mapping.protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => 6,
        "udp" => 17,
        "sctp" => 132,
        other => return Err(CniError::config(format!("invalid protocol \"{other}\" of a port mapping"))),
    };
    Ok(HostPort {
        // The unspecified address means all of them, of its own family.
        address: mapping.host_ip,
        protocol,
        port: mapping.host_port,
        pod_port: mapping.container_port,
    })
}

/// The first address of each family, with the ports that lead to it.
fn by_family(plan: &Plan, result: &CniResult) -> Vec<(IpNet, Vec<HostPort>)> {
    let first = |v4| result.pod_ips().map(|ip| ip.address).find(|address| address.addr().is_ipv4() == v4);
    let of = |v4| {
        let pod = first(v4)?;
        let fits = |port: &&HostPort| port.address.is_none_or(|address| address.is_ipv4() == v4);
        let ports = plan
            .ports
            .iter()
            .filter(fits)
            .map(|port| HostPort { address: port.address.filter(|address| !address.is_unspecified()), ..port.clone() });
        Some((pod, ports.collect::<Vec<_>>()))
    };
    [of(true), of(false)].into_iter().flatten().filter(|(_, ports)| !ports.is_empty()).collect()
}

/// Whether connections to 127.0.0.1 must reach the pod.
fn needs_localnet(plan: &Plan, pod: IpNet, ports: &[HostPort]) -> bool {
    pod.addr().is_ipv4()
        && plan.nat != SourceNat::Never
        && ports.iter().any(|port| port.address.as_ref().is_none_or(IpAddr::is_loopback))
}

/// The host's link towards the pod: the first that the plugins before made in the host.
fn host_link(result: &CniResult) -> Option<&str> {
    result.interfaces.iter().find(|interface| interface.sandbox.is_empty()).map(|interface| &*interface.name)
}

fn protocol_name(protocol: u8) -> &'static str {
    match protocol {
        6 => "tcp",
        17 => "udp",
        _ => "sctp",
    }
}
