//! Network namespaces, links, addresses, routes and firewall rules, as the machine's own tools tell them.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::Result;
use serde_json::Value;

use crate::{command, ip};

/// The namespaces that some process is in. Those that only a mount keeps are among the mounts.
pub(super) fn namespaces() -> Result<Vec<String>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        if let Ok(namespace) = fs::read_link(entry?.path().join("ns/net")) {
            found.insert(namespace.display().to_string());
        }
    }
    Ok(found.into_iter().collect())
}

pub(super) fn links() -> Result<Vec<String>> {
    let links = ip::json(&["-details", "link", "show"])?;
    Ok(links
        .iter()
        .map(|link| {
            let kind = &link["linkinfo"]["info_kind"];
            format!("{} kind {kind} mtu {} master {}", text(&link["ifname"]), link["mtu"], link["master"])
        })
        .collect())
}

pub(super) fn addresses() -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for link in ip::json(&["address", "show"])? {
        for address in link["addr_info"].as_array().into_iter().flatten() {
            lines.push(format!("{}/{} on {}", text(&address["local"]), address["prefixlen"], text(&link["ifname"])));
        }
    }
    Ok(lines)
}

pub(super) fn routes() -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for family in ["-4", "-6"] {
        for what in [["route", "show", "table", "all"].as_slice(), ["rule", "show"].as_slice()] {
            for route in ip::json(&[&[family], what].concat())? {
                // Flags tell of the carrier, which comes and goes with a bridge's ports.
                let Value::Object(mut fields) = route else { continue };
                if is_link_local_host_route(&fields) {
                    continue;
                }
                fields.remove("flags");
                fields.remove("expires");
                lines.push(format!("{family} {}", Value::Object(fields)));
            }
        }
    }
    Ok(lines)
}

/// The kernel's own entry for a link-local address. It appears when duplicate address detection ends, a second or two
/// after a link (a bridge that had no port) gets its carrier; the address itself is compared.
fn is_link_local_host_route(fields: &serde_json::Map<String, Value>) -> bool {
    let is = |field: &str, value: &str| fields.get(field).and_then(Value::as_str) == Some(value);
    is("type", "local")
        && is("protocol", "kernel")
        && fields.get("dst").map(text).is_some_and(|dst| dst.starts_with("fe80:"))
}

pub(super) fn firewall() -> Result<Vec<String>> {
    let mut lines = vec![];
    for (program, arguments) in
        [("nft", ["--stateless", "list", "ruleset"].as_slice()), ("iptables-save", &[]), ("ip6tables-save", &[])]
    {
        let text = command::output(Command::new(program).args(arguments))?;
        lines.extend(text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            // A chain's line ends in its counters.
            let line = line.split(" [").next().unwrap_or(line);
            format!("{program}: {}", line.trim())
        }));
    }
    Ok(lines)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}
