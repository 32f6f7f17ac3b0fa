//! What pods and containers are asked for, as a kubelet does it.

use std::collections::HashMap;

use anyhow::Result;
use berth_cri_proto::v1 as cri;

/// Pods are put below this cgroup.
pub(crate) const CGROUP: &str = "/e2e-pods";
/// The label by which a kubelet finds what belongs to a pod.
pub(crate) const UID: &str = "io.kubernetes.pod.uid";
/// The first host port that a pod maps; each takes the next.
const FIRST_PORT: i32 = 20_000;

/// A shell's script that ends at SIGTERM: a container's first process has no default action for it.
pub(crate) const UNTIL_TERM: &str = "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done";

/// The uid of the pod of a number.
pub(crate) fn uid(number: usize) -> String {
    format!("{:08x}-0000-4000-8000-{number:012x}", std::process::id())
}

/// A pod with DNS, a host port of its own and the default shared memory; its logs lie below `logs`.
pub(crate) fn sandbox(number: usize, attempt: u32, logs: &str) -> Result<cri::PodSandboxConfig> {
    let (name, uid) = (format!("pod-{number}"), uid(number));
    Ok(cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.clone(),
            uid: uid.clone(),
            namespace: "e2e".into(),
            attempt,
        }),
        hostname: name,
        labels: HashMap::from([(UID.to_owned(), uid.clone())]),
        log_directory: format!("{logs}/{uid}"),
        dns_config: Some(cri::DnsConfig {
            servers: vec!["10.96.0.10".into()],
            searches: vec!["default.svc.cluster.local".into(), "svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        }),
        port_mappings: vec![cri::PortMapping {
            protocol: cri::Protocol::Tcp.into(),
            container_port: 80,
            host_port: FIRST_PORT + i32::try_from(number)?,
            host_ip: String::new(),
        }],
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: format!("{CGROUP}/pod{uid}"),
            security_context: Some(cri::LinuxSandboxSecurityContext {
                namespace_options: Some(own_processes()),
                seccomp: Some(runtime_default()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    })
}

/// A container of such a pod.
pub(crate) fn container(
    sandbox: &cri::PodSandboxConfig,
    image: &str,
    attempt: u32,
    command: &[&str],
) -> cri::ContainerConfig {
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: "main".into(), attempt }),
        image: Some(image_spec(image)),
        command: command.iter().map(|&word| word.into()).collect(),
        labels: sandbox.labels.clone(),
        log_path: format!("main_{attempt}.log"),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(cri::LinuxContainerResources {
                cpu_shares: 102,
                memory_limit_in_bytes: 256 << 20,
                oom_score_adj: 1000,
                ..Default::default()
            }),
            security_context: Some(cri::LinuxContainerSecurityContext {
                namespace_options: Some(own_processes()),
                seccomp: Some(runtime_default()),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

pub(crate) fn image_spec(image: &str) -> cri::ImageSpec {
    cri::ImageSpec { image: image.to_owned(), ..Default::default() }
}

fn own_processes() -> cri::NamespaceOption {
    cri::NamespaceOption { pid: cri::NamespaceMode::Container.into(), ..Default::default() }
}

fn runtime_default() -> cri::SecurityProfile {
    cri::SecurityProfile {
        profile_type: cri::security_profile::ProfileType::RuntimeDefault.into(),
        localhost_ref: String::new(),
    }
}
