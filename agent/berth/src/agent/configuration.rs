//! What applies, from files and flags.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use berth_manifest::config::{self, KubeletConfig, Layer};
use k8s_openapi::api::core::v1::Taint;

use crate::cli::{Agent, CloudProvider};
use crate::host;

/// A configuration file is some KiB.
const LONGEST: u64 = 1 << 20;

/// What the agent runs with.
#[derive(Debug)]
pub(super) struct Configuration {
    pub(super) kubelet: KubeletConfig,
    /// The node's name.
    pub(super) name: String,
    /// Its addresses, the primary first.
    pub(super) ips: Vec<IpAddr>,
    pub(super) labels: BTreeMap<String, String>,
}

/// Reads the files and checks the flags; says what has no effect.
pub(super) fn load(options: &Agent) -> Result<Configuration> {
    let mut layers = Vec::new();
    if let Some(path) = &options.config {
        layers.push(layer(path).with_context(|| format!("--config {}", path.display()))?);
    }
    if let Some(folder) = &options.config_dir {
        layers.extend(drop_ins(folder).with_context(|| format!("--config-dir {}", folder.display()))?);
    }
    let loaded = config::load_layers(&layers, &options.kubelet.fields)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    if !options.kubelet.unused.is_empty() {
        tracing::warn!("flags without effect on Berth: {}", options.kubelet.unused.join(", "));
    }
    let deprecated: Vec<&str> = options.kubelet.fields.iter().map(|over| over.flag.as_str()).collect();
    if !deprecated.is_empty() {
        tracing::debug!("flags that stand for fields of the file of --config: {}", deprecated.join(", "));
    }
    let mut kubelet = loaded.config;
    if options.cloud_provider == Some(CloudProvider::External) {
        kubelet.register_with_taints.push(Taint {
            key: "node.cloudprovider.kubernetes.io/uninitialized".to_owned(),
            value: Some("true".to_owned()),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        });
    }
    let name = options.hostname_override.clone().unwrap_or_else(host::name).trim().to_lowercase();
    Ok(Configuration { ips: ips(&options.node_ip)?, labels: labels(&options.node_labels)?, kubelet, name })
}

fn layer(path: &Path) -> Result<Layer> {
    let size = fs::metadata(path)?.len();
    if size > LONGEST {
        bail!("is {size} bytes long, at most {LONGEST} are read");
    }
    Ok(Layer { file: path.to_path_buf(), text: fs::read_to_string(path)? })
}

/// `*.conf`, in the order of their names; the kubelet, too, passes over others.
fn drop_ins(folder: &Path) -> Result<Vec<Layer>> {
    let mut paths: Vec<_> =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "conf") && path.is_file());
    paths.sort();
    paths.iter().map(|path| layer(path).with_context(|| path.display().to_string())).collect()
}

fn ips(given: &[IpAddr]) -> Result<Vec<IpAddr>> {
    let said: Vec<IpAddr> = given.iter().copied().filter(|ip| !ip.is_unspecified()).collect();
    match said.as_slice() {
        [] => Ok(vec![host::address().context("this host has no address: give one with --node-ip")?]),
        [_] => Ok(said),
        [first, second] if first.is_ipv4() != second.is_ipv4() => Ok(said),
        _ => bail!("--node-ip: one address, or one of each family, is expected"),
    }
}

/// Labels that a node may give itself (`k8s.io/kubelet@v0.37.2:pkg/apis/well_known_labels.go`).
const OWN_LABELS: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
const OWN_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

fn labels(pairs: &[String]) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for pair in pairs.iter().map(|pair| pair.trim()).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (key.trim(), value.trim());
        if !is_own_label(key) {
            bail!(
                "--node-labels: {key:?}: the API server does not let a node give itself this label: in kubernetes.io only \
                 {}, and what begins with {} or ends with them",
                OWN_LABELS.join(", "),
                OWN_NAMESPACES.join(", ")
            );
        }
        let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
        let prefix_is_good = prefix.is_none_or(|prefix| {
            !prefix.is_empty()
                && prefix.len() <= 253
                && prefix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
        });
        if !prefix_is_good || name.is_empty() || !is_word(name) || !is_word(value) {
            bail!(
                "--node-labels: {pair:?}: expected key=value, both at most 63 letters, digits, '-', '_' and '.', the key \
                 perhaps after a domain and '/'"
            );
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

fn is_own_label(key: &str) -> bool {
    let Some((namespace, _)) = key.split_once('/') else { return true };
    let of =
        |domain: &str| namespace == domain || namespace.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    let reserved = of("kubernetes.io") || of("k8s.io");
    !reserved || OWN_LABELS.contains(&key) || OWN_NAMESPACES.into_iter().any(of)
}

/// What a label's value may be; nothing, too.
fn is_word(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &str) -> Result<BTreeMap<String, String>> {
        labels(&pairs.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn labels_that_a_node_may_give_itself() {
        let good = of("a=b,example.com/role=worker,node.kubernetes.io/x=1,my.kubelet.kubernetes.io/y=,topology.kubernetes.io/zone=z,flag")
            .expect("good");
        assert_eq!(good.len(), 6);
        assert_eq!((good["flag"].as_str(), good["example.com/role"].as_str()), ("", "worker"));
        for bad in [
            "node-role.kubernetes.io/worker=",
            "x.k8s.io/y=1",
            "kubernetes.io/other=1",
            "a=-b",
            "=b",
            "/a=b",
            "A.com/a=b",
            "a=b c",
        ] {
            of(bad).expect_err(bad);
        }
        assert!(
            of("node-role.kubernetes.io/w=").expect_err("reserved").to_string().contains("node-role.kubernetes.io/w")
        );
    }

    #[test]
    fn addresses_are_one_or_one_of_each_family() {
        let of = |list: &[&str]| ips(&list.iter().map(|ip| ip.parse().expect("an address")).collect::<Vec<_>>());
        assert_eq!(of(&["10.0.0.1", "fd00::1"]).expect("both").len(), 2);
        assert_eq!(of(&["fd00::1"]).expect("one").len(), 1);
        of(&["10.0.0.1", "10.0.0.2"]).expect_err("twice IPv4");
        of(&["10.0.0.1", "fd00::1", "fd00::2"]).expect_err("three");
    }
}
