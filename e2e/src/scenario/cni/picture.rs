//! What a network namespace looks like, without what is made up.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Result;
use serde_json::{Value, json};

use crate::ip;

/// Settings that plugins change, of the namespace and of each link.
const SETTINGS: [&str; 2] = ["ipv4/ip_forward", "ipv6/conf/all/forwarding"];
const OF_LINKS: [&str; 5] = [
    "ipv4/conf/LINK/arp_notify",
    "ipv4/conf/LINK/proxy_arp",
    "ipv6/conf/LINK/accept_ra",
    "ipv6/conf/LINK/disable_ipv6",
    "ipv6/conf/LINK/keep_addr_on_down",
];

/// By part: links, addresses, routes, settings.
pub(super) type Picture = Vec<(&'static str, String)>;

/// Of the calling thread's namespace, sorted.
pub(super) fn take() -> Result<Picture> {
    let links = ip::json(&["-details", "link", "show"])?;
    let names: Vec<String> = links.iter().map(|link| text(&link["ifname"])).collect();
    let mut lines: BTreeMap<&str, Vec<String>> =
        ["links", "addresses", "routes", "settings"].into_iter().map(|part| (part, Vec::new())).collect();
    for link in &links {
        let up = link["flags"].as_array().is_some_and(|flags| flags.contains(&"UP".into()));
        let port = &link["linkinfo"]["info_slave_data"];
        let told = json!([
            link["ifname"],
            link["linkinfo"]["info_kind"],
            link["mtu"],
            link["master"],
            up,
            port["hairpin"],
            port["isolated"],
            link["promiscuity"].as_u64().is_some_and(|count| count > 0),
        ]);
        lines.entry("links").or_default().push(named(&told.to_string(), &names));
    }
    for link in ip::json(&["address", "show"])? {
        for address in link["addr_info"].as_array().into_iter().flatten().filter(|address| !is_local(&address["local"]))
        {
            let told =
                json!([link["ifname"], address["local"], address["prefixlen"], address["scope"], address["broadcast"]]);
            lines.entry("addresses").or_default().push(named(&told.to_string(), &names));
        }
    }
    for family in ["-4", "-6"] {
        for mut route in ip::json(&[family, "route", "show", "table", "all"])? {
            // Entries about link-local and multicast addresses come with each link that is up.
            if is_local(&route["dst"]) || text(&route["dst"]).starts_with("ff00:") || route["type"] == "multicast" {
                continue;
            }
            if let Some(fields) = route.as_object_mut() {
                fields.remove("flags");
                fields.remove("expires");
            }
            lines.entry("routes").or_default().push(named(&format!("{family} {route}"), &names));
        }
    }
    let settings = SETTINGS.iter().map(|setting| (*setting).to_owned());
    let of_links = names.iter().flat_map(|name| OF_LINKS.iter().map(|setting| setting.replace("LINK", name)));
    for setting in settings.chain(of_links) {
        let value = fs::read_to_string(format!("/proc/sys/net/{setting}")).unwrap_or_default();
        lines.entry("settings").or_default().push(named(&format!("{setting} {}", value.trim()), &names));
    }
    for lines in lines.values_mut() {
        lines.sort();
    }
    Ok(lines.into_iter().map(|(part, lines)| (part, lines.join("\n            "))).collect())
}

/// Names of veth pairs are made up.
pub(super) fn named(told: &str, names: &[String]) -> String {
    names
        .iter()
        .filter(|name| name.starts_with("veth"))
        .fold(told.to_owned(), |told, name| told.replace(name.as_str(), "VETH"))
}

fn is_local(address: &Value) -> bool {
    text(address).starts_with("fe80:")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
