//! The verbose parts of statuses: JSON under containerd's keys, since tools look there.

use berth_cri_core::state::{ContainerState, SandboxState};
use berth_cri_proto::v1 as cri;
use berth_effect::record;
use serde_json::{Map, Value, json};

use crate::container::Container;
use crate::places::text;
use crate::runtime::Runtime;
use crate::sandbox::Sandbox;

/// An OCI configuration has the lists of a container's configuration, in words.
const SPEC: u64 = 32 << 20;

/// What containerd calls the plug-in that runs containers.
pub(crate) const RUNTIME: &str = "berth-shim";

/// Reads the container's OCI configuration.
pub(crate) fn container(runtime: &Runtime, container: &Container) -> Value {
    let pid = match container.state() {
        ContainerState::Running { pid, .. } => pid,
        ContainerState::Created | ContainerState::Exited { .. } => 0,
    };
    let config = container.config();
    let image = config.image.clone().unwrap_or_default();
    json!({
        "sandboxID": container.sandbox,
        "pid": pid,
        "removing": false,
        "snapshotKey": container.id,
        "snapshotter": "overlayfs",
        "rootfsUpper": text(&runtime.places.container(&container.id).join("upper")),
        "cgroupsPath": container.record.cgroup,
        "runtimeType": RUNTIME,
        "runtimeOptions": null,
        "image": { "image": image.image, "userSpecifiedImage": image.user_specified_image, "id": container.record.image_id },
        "config": container_config(config, &container.limits()),
        "runtimeSpec": spec(runtime, container),
    })
}

pub(crate) fn sandbox(runtime: &Runtime, sandbox: &Sandbox) -> Value {
    let (pid, reason) = match sandbox.state() {
        SandboxState::Ready { shim, .. } => (shim, String::new()),
        SandboxState::NotReady { reason, .. } => (0, reason),
    };
    let namespace = text(&runtime.places.namespace(&sandbox.id));
    let network = sandbox.has_network();
    let resources = sandbox.resources().unwrap_or_default();
    json!({
        "pid": pid,
        "reason": reason,
        "processStatus": if pid == 0 { "deleted" } else { "running" },
        "netNamespace": if network { namespace.as_str() } else { "" },
        "netNamespaceClosed": network && pid == 0,
        // There is no pause container: nothing of the sandbox comes from an image.
        "image": "",
        "snapshotKey": "",
        "snapshotter": "overlayfs",
        "runtimeHandler": sandbox.handler,
        "runtimeType": RUNTIME,
        "runtimeOptions": null,
        "cgroupParent": sandbox.plan.cgroup_parent,
        "overhead": limits(&resources.overhead.0),
        "resources": limits(&resources.resources.0),
        "config": sandbox_config(&sandbox.config),
        "runtimeSpec": sandbox_spec(sandbox, pid, network.then_some(namespace)),
    })
}

/// As it was compiled, with the limits of now.
pub(crate) fn spec(runtime: &Runtime, container: &Container) -> Value {
    let bytes = record::read(&runtime.places.container_spec(&container.id), SPEC);
    let spec = bytes.ok().flatten().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut spec: Value = spec.unwrap_or(Value::Null);
    let limits = container.limits();
    if let Some(Value::Object(resources)) = spec.pointer_mut("/linux/resources") {
        set(resources, "cpu", "shares", limits.cpu_shares.into());
        set(resources, "cpu", "quota", limits.cpu_quota.into());
        set(resources, "cpu", "period", limits.cpu_period.into());
        set(resources, "cpu", "cpus", limits.cpuset_cpus.into());
        set(resources, "cpu", "mems", limits.cpuset_mems.into());
        set(resources, "memory", "limit", limits.memory_limit_in_bytes.into());
        set(resources, "memory", "swap", limits.memory_swap_limit_in_bytes.into());
    }
    spec
}

/// A field of a part, unless it is 0 or empty, which is "not specified".
fn set(resources: &mut Map<String, Value>, part: &str, field: &str, value: Value) {
    if value == json!(0) || value == json!("") {
        return;
    }
    let part = resources.entry(part).or_insert_with(|| json!({}));
    if let Value::Object(part) = part {
        part.insert(field.to_owned(), value);
    }
}

/// Which namespaces the pod has, in the form of an OCI configuration; the shim holds all but the network's, which is
/// bound.
fn sandbox_spec(sandbox: &Sandbox, pid: i32, network: Option<String>) -> Value {
    use berth_cri_core::compile::NamespaceScope::Pod;
    let of = |kind: &str| format!("/proc/{pid}/ns/{kind}");
    let mut namespaces = Vec::new();
    if let Some(path) = network {
        namespaces.push(json!({ "type": "network", "path": path }));
    }
    if pid != 0 {
        if sandbox.plan.ipc == Pod {
            namespaces.push(json!({ "type": "ipc", "path": of("ipc") }));
        }
        if sandbox.plan.new_uts {
            namespaces.push(json!({ "type": "uts", "path": of("uts") }));
        }
    }
    json!({
        "hostname": sandbox.plan.hostname,
        "annotations": sandbox.config.annotations,
        "linux": {
            "cgroupsPath": sandbox.plan.cgroup_parent,
            "namespaces": namespaces,
            "sysctl": sandbox.plan.sysctls.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        },
    })
}

/// The fields of a configuration that are asked after; process, mounts and security are in the OCI configuration.
fn container_config(config: &cri::ContainerConfig, now: &cri::LinuxContainerResources) -> Value {
    let metadata = config.metadata.clone().unwrap_or_default();
    let image = config.image.clone().unwrap_or_default();
    let mount = |mount: &cri::Mount| {
        json!({
            "container_path": mount.container_path,
            "host_path": mount.host_path,
            "readonly": mount.readonly,
            "propagation": mount.propagation,
        })
    };
    let environment = |pair: &cri::KeyValue| json!({ "key": pair.key, "value": String::from_utf8_lossy(&pair.value) });
    json!({
        "metadata": { "name": metadata.name, "attempt": metadata.attempt },
        "image": { "image": image.image, "user_specified_image": image.user_specified_image },
        "command": config.command,
        "args": config.args,
        "working_dir": config.working_dir,
        "envs": config.envs.iter().map(environment).collect::<Vec<_>>(),
        "mounts": config.mounts.iter().map(mount).collect::<Vec<_>>(),
        "labels": config.labels,
        "annotations": config.annotations,
        "log_path": config.log_path,
        "stdin": config.stdin,
        "stdin_once": config.stdin_once,
        "tty": config.tty,
        "linux": { "resources": limits(now) },
    })
}

fn sandbox_config(config: &cri::PodSandboxConfig) -> Value {
    let metadata = config.metadata.clone().unwrap_or_default();
    let linux = config.linux.clone().unwrap_or_default();
    let port = |port: &cri::PortMapping| {
        json!({
            "protocol": port.protocol,
            "container_port": port.container_port,
            "host_port": port.host_port,
            "host_ip": port.host_ip,
        })
    };
    json!({
        "metadata": {
            "name": metadata.name,
            "uid": metadata.uid,
            "namespace": metadata.namespace,
            "attempt": metadata.attempt,
        },
        "hostname": config.hostname,
        "log_directory": config.log_directory,
        "dns_config": config.dns_config.as_ref().map(|dns| {
            json!({ "servers": dns.servers, "searches": dns.searches, "options": dns.options })
        }),
        "port_mappings": config.port_mappings.iter().map(port).collect::<Vec<_>>(),
        "labels": config.labels,
        "annotations": config.annotations,
        "linux": { "cgroup_parent": linux.cgroup_parent, "sysctls": linux.sysctls },
    })
}

fn limits(limits: &cri::LinuxContainerResources) -> Value {
    json!({
        "cpu_period": limits.cpu_period,
        "cpu_quota": limits.cpu_quota,
        "cpu_shares": limits.cpu_shares,
        "memory_limit_in_bytes": limits.memory_limit_in_bytes,
        "memory_swap_limit_in_bytes": limits.memory_swap_limit_in_bytes,
        "oom_score_adj": limits.oom_score_adj,
        "cpuset_cpus": limits.cpuset_cpus,
        "cpuset_mems": limits.cpuset_mems,
        "unified": limits.unified,
    })
}
