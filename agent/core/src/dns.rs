//! What a pod's `/etc/resolv.conf` says.
//!
//! Source: `kubernetes@v1.37.2:pkg/kubelet/network/dns/dns.go`.

use berth_cri_proto::v1::DnsConfig;
use k8s_openapi::api::core::v1::Pod;

use crate::names;

/// glibc's limits, and the API's: 3 servers, 32 search domains of 2048 characters in all.
const SERVERS: usize = 3;
const SEARCHES: usize = 32;
const SEARCH_CHARACTERS: usize = 2048;

/// What the node offers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// Servers for ClusterFirst.
    pub cluster_dns: Vec<String>,
    /// The cluster's domain; empty is none.
    pub cluster_domain: String,
    /// The host's resolver file, parsed ([`parse`]).
    pub host: DnsConfig,
}

/// The DNS settings of a pod.
pub fn of(pod: &Pod, offer: &Offer) -> DnsConfig {
    let Some(spec) = &pod.spec else { return offer.host.clone() };
    let host_network = spec.host_network == Some(true);
    let mut config = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => DnsConfig::default(),
        "Default" => offer.host.clone(),
        "ClusterFirst" if host_network => offer.host.clone(),
        // ClusterFirst and ClusterFirstWithHostNet.
        _ if offer.cluster_dns.is_empty() => offer.host.clone(),
        _ => cluster_first(pod, offer),
    };
    if let Some(own) = &spec.dns_config {
        append(&mut config.servers, own.nameservers.iter().flatten());
        append(&mut config.searches, own.searches.iter().flatten());
        for option in own.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            config.options.retain(|old| old.split(':').next() != Some(name));
            config.options.push(match option.value.as_deref() {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name.clone(),
            });
        }
    }
    limit(&mut config);
    config
}

fn cluster_first(pod: &Pod, offer: &Offer) -> DnsConfig {
    let mut searches = Vec::new();
    if !offer.cluster_domain.is_empty() {
        let domain = &offer.cluster_domain;
        searches.push(format!("{}.svc.{domain}", names::namespace(pod)));
        searches.push(format!("svc.{domain}"));
        searches.push(domain.clone());
    }
    append(&mut searches, offer.host.searches.iter());
    DnsConfig { servers: offer.cluster_dns.clone(), searches, options: vec!["ndots:5".to_owned()] }
}

fn append<'a>(list: &mut Vec<String>, more: impl Iterator<Item = &'a String>) {
    for entry in more {
        if !list.contains(entry) {
            list.push(entry.clone());
        }
    }
}

fn limit(config: &mut DnsConfig) {
    config.servers.truncate(SERVERS);
    config.searches.truncate(SEARCHES);
    while config.searches.join(" ").len() > SEARCH_CHARACTERS {
        config.searches.pop();
    }
}

/// A resolver file's settings (`resolv.conf(5)`): the last `search` or `domain` line counts.
pub fn parse(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            // A single dot means "no search": the kubelet keeps it, glibc ignores it.
            Some("search") => {
                config.searches =
                    words.map(|word| if word == "." { word } else { word.trim_end_matches('.') }.to_owned()).collect();
            }
            Some("domain") => config.searches = words.take(1).map(str::to_owned).collect(),
            Some("options") => {
                for option in words {
                    if !config.options.iter().any(|known| known == option) {
                        config.options.push(option.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    limit(&mut config);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "json! values read better by value")]
    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec}))
            .expect("pod")
    }

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn policies() {
        let offer = Offer {
            cluster_dns: strings(&["10.96.0.10"]),
            cluster_domain: "cluster.local".into(),
            host: parse("# comment\nnameserver 1.1.1.1\nsearch a.example. b.example\noptions rotate\n"),
        };
        let cluster = strings(&["n.svc.cluster.local", "svc.cluster.local", "cluster.local", "a.example", "b.example"]);
        let rows = [
            (serde_json::json!({"containers": []}), strings(&["10.96.0.10"]), cluster.clone(), strings(&["ndots:5"])),
            (
                serde_json::json!({"containers": [], "dnsPolicy": "Default"}),
                strings(&["1.1.1.1"]),
                strings(&["a.example", "b.example"]),
                strings(&["rotate"]),
            ),
            (
                serde_json::json!({"containers": [], "hostNetwork": true}),
                strings(&["1.1.1.1"]),
                strings(&["a.example", "b.example"]),
                strings(&["rotate"]),
            ),
            (
                serde_json::json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
                strings(&["10.96.0.10"]),
                cluster,
                strings(&["ndots:5"]),
            ),
            (
                serde_json::json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {
                    "nameservers": ["9.9.9.9", "9.9.9.9"], "searches": ["s"],
                    "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
                strings(&["9.9.9.9"]),
                strings(&["s"]),
                strings(&["ndots:2", "edns0"]),
            ),
        ];
        for (spec, servers, searches, options) in rows {
            assert_eq!(of(&pod(spec.clone()), &offer), DnsConfig { servers, searches, options }, "{spec}");
        }
    }

    #[test]
    fn without_cluster_dns_the_hosts_is_used_and_options_merge_by_name() {
        let offer = Offer { host: parse("nameserver 1.1.1.1\noptions ndots:1"), ..Offer::default() };
        let spec = serde_json::json!({"containers": [], "dnsConfig": {"options": [{"name": "ndots", "value": "3"}]}});
        let config = of(&pod(spec), &offer);
        assert_eq!((config.servers, config.options), (strings(&["1.1.1.1"]), strings(&["ndots:3"])));
    }

    #[test]
    fn limits() {
        let many = (0..40).map(|n| format!("d{n}.example")).collect::<Vec<_>>().join(" ");
        let config = parse(&format!("nameserver 1\nnameserver 2\nnameserver 3\nnameserver 4\nsearch {many}"));
        assert_eq!((config.servers.len(), config.searches.len()), (3, 32));
    }
}
