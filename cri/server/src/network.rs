//! A sandbox's network: its namespace, and what CNI plugins put into it. Everything here blocks.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_cni::{
    Attachment, CniResult, Command, LoadError, Loader, NetworkList, Plugins, Request, RuntimeError, ValidAttachment,
    Version,
};
use berth_cri_core::compile::{PortProtocol, SandboxPlan};
use berth_cri_proto::v1 as cri;
use berth_sys::netns::{self, NetNs};
use serde_json::{Map, Value, json};

use crate::Config;
use crate::places::Places;

/// The name of the pod's interface, as every runtime calls it.
pub(crate) const INTERFACE: &str = "eth0";

/// After this time an exec'd plugin is killed: less than the kubelet's patience with RunPodSandbox (4 minutes).
const PLUGIN_TIMEOUT: Duration = Duration::from_secs(220);

#[derive(Debug)]
pub(crate) struct Network {
    loader: Loader,
    /// The network that the agent gives its own pods, while nobody else has configured one.
    own: Loader,
    runtime: berth_cni::Runtime,
    plugins: Plugins,
}

/// Why a sandbox got no network.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error("cni plugin not initialized: {0}")]
    NoNetwork(#[from] LoadError),
    #[error(transparent)]
    Plugin(#[from] RuntimeError),
    #[error("network namespace: {0}")]
    Namespace(#[from] std::io::Error),
    #[error("loopback: {0}")]
    Loopback(#[from] berth_cni::CniError),
    #[error("the network plugins gave the pod no address")]
    NoAddress,
}

/// Where the agent puts the configuration of a network of its own (`--pod-network=bridge`), below the state folder. It
/// counts only while the CNI configuration folder holds none.
pub fn own_network_dir(state: &Path) -> PathBuf {
    state.join("pod-network")
}

impl Network {
    pub(crate) fn new(config: &Config, places: &Places) -> Self {
        let plugins = Plugins {
            builtin: berth_cni_plugins::builtin,
            bin_dirs: config.cni_bin_dirs.clone(),
            running_dir: Some(places.running_plugins()),
            timeout: PLUGIN_TIMEOUT,
        };
        Self {
            loader: Loader::new(&config.cni_conf_dir),
            own: Loader::new(own_network_dir(&config.state)),
            runtime: berth_cni::Runtime::new(plugins.clone(), &config.cni_cache_dir),
            plugins,
        }
    }

    /// Whether sandboxes can get a network now; why not otherwise.
    pub(crate) fn ready(&self) -> Result<(), NetworkError> {
        let list = self.choose()?;
        Ok(self.runtime.status(&list)?)
    }

    /// The network that a new sandbox will be attached to.
    pub(crate) fn choose(&self) -> Result<Arc<NetworkList>, NetworkError> {
        match self.loader.load() {
            Ok(list) => Ok(list),
            // Why the operator's folder gives none is what people need to know when there is nothing else.
            Err(error) => self.own.load().map_err(|_| error.into()),
        }
    }

    /// Makes a namespace with its loopback up, pinned to `path`.
    pub(crate) fn make(&self, path: &Path) -> Result<NetNs, NetworkError> {
        let namespace = berth_effect::run("netns-create", || netns::create(path))?;
        self.loopback(path)?;
        Ok(namespace)
    }

    /// Brings up the loopback of the namespace that a process is in, and pins it to `path`.
    pub(crate) fn adopt(&self, path: &Path, process: i32) -> Result<(), NetworkError> {
        let source = PathBuf::from(format!("/proc/{process}/ns/net"));
        berth_effect::run("netns-create", || netns::pin(&source, path))?;
        self.loopback(path)
    }

    fn loopback(&self, path: &Path) -> Result<(), NetworkError> {
        let request = Request {
            command: Command::Add,
            container_id: "loopback".to_owned(),
            netns: Some(path.to_path_buf()),
            ifname: "lo".to_owned(),
            args: String::new(),
            cni_version: Version::V1_1_0,
            network: "loopback".to_owned(),
            config: Map::new(),
            prev_result: None,
            plugins: self.plugins.clone(),
        };
        self.plugins.call("loopback", &request)?;
        Ok(())
    }

    /// Attaches a sandbox: its addresses, an IPv4 one first where it has one.
    pub(crate) fn attach(
        &self,
        list: &NetworkList,
        id: &str,
        path: &Path,
        config: &cri::PodSandboxConfig,
        plan: &SandboxPlan,
    ) -> Result<Vec<String>, NetworkError> {
        let metadata = config.metadata.clone().unwrap_or_default();
        let args = [
            ("IgnoreUnknown", "1"),
            ("K8S_POD_NAMESPACE", &metadata.namespace),
            ("K8S_POD_NAME", &metadata.name),
            ("K8S_POD_INFRA_CONTAINER_ID", id),
            ("K8S_POD_UID", &metadata.uid),
        ];
        let attachment = Attachment {
            container_id: id.to_owned(),
            netns: Some(path.to_path_buf()),
            ifname: INTERFACE.to_owned(),
            args: args.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            capabilities: capabilities(config, plan),
        };
        let result = self.runtime.add(list, &attachment)?;
        let ips = addresses(&result);
        if ips.is_empty() { Err(NetworkError::NoAddress) } else { Ok(ips) }
    }

    /// Detaches a sandbox from every network and removes its namespace; repeating it is fine.
    pub(crate) fn detach(&self, id: &str, path: &Path) -> Result<(), NetworkError> {
        self.runtime.del_container(id)?;
        Ok(berth_effect::run("netns-remove", || netns::remove(path))?)
    }

    /// Detaches those of our sandboxes that are not in `live`, and lets the plugins find what no cache knows. The cache is
    /// shared: what lies in a namespace that is not ours is another runtime's, and stays. Returns those that could not be
    /// detached.
    pub(crate) fn collect(&self, live: &[String], places: &Places) -> Vec<String> {
        let ours = places.namespaces();
        let mut valid: Vec<ValidAttachment> =
            live.iter().map(|id| ValidAttachment { container_id: id.clone(), ifname: INTERFACE.to_owned() }).collect();
        let mut left = Vec::new();
        for cached in self.runtime.attachments() {
            let attachment = cached.attachment;
            if live.contains(&attachment.container_id) {
                continue;
            }
            if attachment.netns.as_ref().is_some_and(|path| path.starts_with(&ours)) {
                if let Err(error) = self.runtime.del_container(&attachment.container_id) {
                    tracing::warn!(sandbox = attachment.container_id, %error, "a left-over network attachment");
                    left.push(attachment.container_id);
                }
            } else {
                let Attachment { container_id, ifname, .. } = attachment;
                valid.push(ValidAttachment { container_id, ifname });
            }
        }
        match self.loader.load() {
            Err(error) => tracing::debug!(%error, "no network to collect on"),
            Ok(list) => {
                if let Err(error) = self.runtime.gc(&list, &valid) {
                    tracing::warn!(%error, "left-over network attachments");
                }
            }
        }
        left
    }
}

fn capabilities(config: &cri::PodSandboxConfig, plan: &SandboxPlan) -> Map<String, Value> {
    let mut capabilities = Map::new();
    let ports: Vec<Value> = plan
        .port_mappings
        .iter()
        .map(|port| {
            let protocol = match port.protocol {
                PortProtocol::Tcp => "tcp",
                PortProtocol::Udp => "udp",
                PortProtocol::Sctp => "sctp",
            };
            json!({
                "hostPort": port.host_port,
                "containerPort": port.container_port,
                "protocol": protocol,
                "hostIP": port.host_ip,
            })
        })
        .collect();
    if !ports.is_empty() {
        capabilities.insert("portMappings".to_owned(), Value::Array(ports));
    }
    if let Some(dns) = &config.dns_config {
        let dns = json!({"servers": dns.servers, "searches": dns.searches, "options": dns.options});
        capabilities.insert("dns".to_owned(), dns);
    }
    if !config.annotations.is_empty() {
        capabilities.insert("io.kubernetes.cri.pod-annotations".to_owned(), json!(config.annotations));
    }
    capabilities
}

fn addresses(result: &CniResult) -> Vec<String> {
    let mut ips: Vec<_> = result.pod_ips().map(|ip| ip.address.addr()).collect();
    // Stable: within a family the plugins' order counts.
    ips.sort_by_key(std::net::IpAddr::is_ipv6);
    ips.iter().map(ToString::to_string).collect()
}

/// The names in the folder of namespaces.
pub(crate) fn pinned(places: &Places) -> Vec<String> {
    let Ok(entries) = fs::read_dir(places.namespaces()) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
