//! A pod as the CRI's PodSandboxConfig.
//!
//! Source: `kubernetes@v1.37.2:pkg/kubelet/kuberuntime/kuberuntime_sandbox.go`.

use std::collections::HashMap;
use std::path::Path;

use berth_cri_proto::v1 as cri;
use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::dns::{self, Offer};
use crate::resources::{self, Limits, Policy};
use crate::users::Users;
use crate::{hosts, names, qos, security};

/// What the node decides about sandboxes.
#[derive(Debug, Clone)]
pub struct Node<'a> {
    /// Pod log folders lie in it.
    pub logs: &'a Path,
    /// The pod's cgroup; empty leaves the choice to the runtime.
    pub cgroup_parent: String,
    /// DNS.
    pub dns: &'a Offer,
    /// Resources.
    pub policy: &'a Policy,
    /// The pod's own users.
    pub users: Option<Users>,
}

/// The sandbox of `pod`. `Err` names a field whose value can't be met.
pub fn config(pod: &Pod, attempt: u32, node: &Node<'_>) -> Result<cri::PodSandboxConfig, String> {
    let default_spec = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&default_spec);
    let hostname = if spec.host_network == Some(true) {
        String::new()
    } else {
        let (host, domain) = hosts::hostname(pod, &node.dns.cluster_domain);
        hosts::kernel_hostname(spec, &host, &domain)?
    };
    let folder = names::log_folder(names::namespace(pod), names::name(pod), names::uid(pod));
    Ok(cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: names::name(pod).to_owned(),
            uid: names::uid(pod).to_owned(),
            namespace: names::namespace(pod).to_owned(),
            attempt,
        }),
        hostname,
        log_directory: node.logs.join(folder).to_string_lossy().into_owned(),
        dns_config: Some(dns::of(pod, node.dns)),
        port_mappings: port_mappings(spec),
        labels: labels(pod),
        annotations: pod.metadata.annotations.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: node.cgroup_parent.clone(),
            security_context: Some(security::of_sandbox(spec, node.users)),
            sysctls: sysctls(spec),
            overhead: Some(overhead(spec, node.policy)),
            resources: Some(to_cri(&summed(spec, node.policy))),
        }),
        windows: None,
    })
}

/// The labels of a sandbox: the pod's own, and what identifies it.
fn labels(pod: &Pod) -> HashMap<String, String> {
    let mut out: HashMap<String, String> =
        pod.metadata.labels.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    out.extend(identity(pod));
    out
}

/// The labels that identify a pod.
pub fn identity(pod: &Pod) -> [(String, String); 3] {
    [
        (names::POD_NAME.to_owned(), names::name(pod).to_owned()),
        (names::POD_NAMESPACE.to_owned(), names::namespace(pod).to_owned()),
        (names::POD_UID.to_owned(), names::uid(pod).to_owned()),
    ]
}

fn port_mappings(spec: &PodSpec) -> Vec<cri::PortMapping> {
    let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    let mut out: Vec<cri::PortMapping> = Vec::new();
    for port in ports {
        let protocol = match port.protocol.as_deref() {
            Some("UDP") => cri::Protocol::Udp,
            Some("SCTP") => cri::Protocol::Sctp,
            _ => cri::Protocol::Tcp,
        };
        out.push(cri::PortMapping {
            protocol: protocol.into(),
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or(0),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        });
    }
    out
}

fn sysctls(spec: &PodSpec) -> HashMap<String, String> {
    let context = spec.security_context.as_ref();
    context
        .and_then(|context| context.sysctls.as_ref())
        .into_iter()
        .flatten()
        .map(|sysctl| (sysctl.name.replace('/', "."), sysctl.value.clone()))
        .collect()
}

fn overhead(spec: &PodSpec, policy: &Policy) -> cri::LinuxContainerResources {
    let cpu = resources::amount(spec.overhead.as_ref(), "cpu");
    let memory = resources::amount(spec.overhead.as_ref(), "memory");
    let limits = Limits {
        cpu_shares: Some(resources::shares(cpu)),
        cpu_quota: Some(resources::quota(cpu, policy.cfs_period)),
        cpu_period: u64::try_from(policy.cfs_period).ok(),
        memory: (memory > 0).then_some(memory),
        ..Limits::default()
    };
    to_cri(&limits)
}

/// What the pod's containers ask for together, without overhead; for runtimes that size a virtual machine by it.
fn summed(spec: &PodSpec, policy: &Policy) -> Limits {
    let bare = PodSpec { overhead: None, ..spec.clone() };
    let limits = resources::pod_limits(&bare, policy);
    Limits { pids: None, hugepages: Vec::new(), ..limits }
}

/// Limits as CRI writes them: 0 is unset.
pub fn to_cri(limits: &Limits) -> cri::LinuxContainerResources {
    let int = |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok()).unwrap_or(0);
    cri::LinuxContainerResources {
        cpu_period: int(limits.cpu_period),
        cpu_quota: limits.cpu_quota.unwrap_or(0),
        cpu_shares: int(limits.cpu_shares),
        memory_limit_in_bytes: limits.memory.unwrap_or(0),
        hugepage_limits: limits
            .hugepages
            .iter()
            .map(|(size, limit)| cri::HugepageLimit { page_size: size.clone(), limit: *limit })
            .collect(),
        ..Default::default()
    }
}

/// Whether a sandbox of `class` would be laid out below `root`; the cgroup parent of a pod.
pub fn cgroup_parent(root: &str, pod: &Pod) -> String {
    let class = pod.spec.as_ref().map_or(qos::Class::BestEffort, qos::class);
    resources::cgroup_path(root, class, names::uid(pod))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_becomes_a_sandbox() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u1", "labels": {"app": "web"}, "annotations": {"a": "b"}},
            "spec": {"hostname": "front", "containers": [{"name": "c", "ports": [
                {"containerPort": 80, "hostPort": 8080}, {"containerPort": 53, "protocol": "UDP"}],
                "resources": {"limits": {"cpu": "1", "memory": "64Mi"}}}],
                "securityContext": {"sysctls": [{"name": "net/ipv4/tcp_syncookies", "value": "1"}]}}}))
        .expect("a pod");
        let (offer, policy) = (Offer::default(), Policy::default());
        let parent = cgroup_parent("/kubepods", &pod);
        let node =
            Node { logs: Path::new("/var/log/pods"), cgroup_parent: parent, dns: &offer, policy: &policy, users: None };
        let config = config(&pod, 3, &node).expect("a config");
        assert_eq!(config.metadata.expect("metadata").attempt, 3);
        assert_eq!((config.hostname.as_str(), config.log_directory.as_str()), ("front", "/var/log/pods/shop_web_u1"));
        assert_eq!((config.port_mappings[0].host_port, config.port_mappings[1].host_port), (8080, 0));
        assert_eq!(config.port_mappings[1].protocol(), cri::Protocol::Udp);
        assert_eq!(config.labels.get("app").map(String::as_str), Some("web"));
        assert_eq!(config.labels.get(names::POD_UID).map(String::as_str), Some("u1"));
        let linux = config.linux.expect("linux");
        assert_eq!(linux.cgroup_parent, "/kubepods/podu1");
        assert_eq!(linux.sysctls.get("net.ipv4.tcp_syncookies").map(String::as_str), Some("1"));
        assert_eq!(linux.resources.expect("resources").memory_limit_in_bytes, 64 << 20);
    }
}
