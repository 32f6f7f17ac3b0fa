//! The Node object, decided from facts: no clock, no API.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus, NodeSystemInfo, Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};

use crate::{Health, Machine, NodeOptions};

/// Held back from allocatable, as the kubelet's default hard eviction thresholds are.
const MEMORY_RESERVED: u64 = 100 << 20;

/// The object to create.
pub(crate) fn node(options: &NodeOptions, machine: &Machine, health: &Health, now: &Time) -> Node {
    Node {
        metadata: ObjectMeta {
            name: Some(options.name.clone()),
            labels: Some(labels(options, machine)),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            provider_id: options.provider_id.clone(),
            taints: Some(options.taints.clone()).filter(|taints: &Vec<Taint>| !taints.is_empty()),
            ..NodeSpec::default()
        }),
        status: Some(status(options, machine, health, &[], now)),
    }
}

/// The labels that say what kind of node this is.
pub(crate) fn labels(options: &NodeOptions, machine: &Machine) -> BTreeMap<String, String> {
    let mut labels = options.labels.clone();
    for (key, value) in [
        ("kubernetes.io/hostname", options.name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", machine.architecture),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", machine.architecture),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels
}

/// The status as it is now. `before`: the conditions that the API server has; a condition that did not change its status
/// keeps its time of transition.
pub(crate) fn status(
    options: &NodeOptions,
    machine: &Machine,
    health: &Health,
    before: &[NodeCondition],
    now: &Time,
) -> NodeStatus {
    NodeStatus {
        addresses: Some(addresses(&options.ips, &options.hostname)),
        capacity: Some(resources(options, machine.memory, machine.cpus, machine.storage)),
        allocatable: Some(resources(
            options,
            machine.memory.saturating_sub(MEMORY_RESERVED),
            machine.cpus,
            machine.storage / 10 * 9,
        )),
        conditions: Some(conditions(health, before, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: options.port.into() }),
        }),
        node_info: Some(NodeSystemInfo {
            architecture: machine.architecture.to_owned(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: options.runtime_version.clone(),
            kernel_version: machine.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: options.version.clone(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: machine.os_image.clone(),
            system_uuid: machine.system_uuid.clone(),
            ..NodeSystemInfo::default()
        }),
        runtime_handlers: Some(health.handlers.clone()).filter(|handlers| !handlers.is_empty()),
        features: health.features.clone(),
        ..NodeStatus::default()
    }
}

fn addresses(ips: &[IpAddr], hostname: &str) -> Vec<NodeAddress> {
    let mut addresses: Vec<_> =
        ips.iter().map(|ip| NodeAddress { type_: "InternalIP".to_owned(), address: ip.to_string() }).collect();
    addresses.push(NodeAddress { type_: "Hostname".to_owned(), address: hostname.to_owned() });
    addresses
}

fn resources(options: &NodeOptions, memory: u64, cpus: usize, storage: u64) -> BTreeMap<String, Quantity> {
    BTreeMap::from([
        ("cpu".to_owned(), Quantity(cpus.to_string())),
        ("memory".to_owned(), Quantity(format!("{}Ki", memory / 1024))),
        ("ephemeral-storage".to_owned(), Quantity(format!("{}Ki", storage / 1024))),
        ("pods".to_owned(), Quantity(options.max_pods.to_string())),
    ])
}

/// Reasons and messages are the kubelet's (`kubernetes@v1.37.2:pkg/kubelet/nodestatus/setters.go`).
fn conditions(health: &Health, before: &[NodeCondition], now: &Time) -> Vec<NodeCondition> {
    let (ready, reason, message) = match &health.problem {
        None => ("True", "KubeletReady", "kubelet is posting ready status"),
        Some(problem) => ("False", "KubeletNotReady", problem.as_str()),
    };
    [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", ready, reason, message),
    ]
    .into_iter()
    .map(|(type_, status, reason, message)| {
        let same = before.iter().find(|condition| condition.type_ == type_ && condition.status == status);
        NodeCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: same.and_then(|same| same.last_transition_time.clone()).or_else(|| Some(now.clone())),
        }
    })
    .collect()
}

/// Whether two statuses say the same, heartbeats aside.
pub(crate) fn is_same(a: &NodeStatus, b: &NodeStatus) -> bool {
    let still = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
            condition.last_transition_time = None;
        }
        status
    };
    still(a) == still(b)
}

/// The strategic merge patch that makes the API server's status this one and leaves others' conditions alone.
pub(crate) fn patch(status: &NodeStatus) -> Value {
    let mut status = json!(status);
    // Addresses merge by type, and there may be two of one type: say them whole.
    if let Some(Value::Array(addresses)) = status.get_mut("addresses") {
        addresses.insert(0, json!({"$patch": "replace"}));
    }
    json!({"status": status})
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{NodeFeatures, NodeRuntimeHandler, NodeRuntimeHandlerFeatures};

    use super::*;

    fn at(text: &str) -> Time {
        Time(text.parse().expect("a time"))
    }

    fn options() -> NodeOptions {
        NodeOptions {
            name: "n".to_owned(),
            hostname: "host".to_owned(),
            ips: vec!["10.0.0.1".parse().expect("address")],
            port: 10250,
            version: "v1.37.2+berth.1".to_owned(),
            runtime_version: "berth://0.1.0".to_owned(),
            max_pods: 110,
            ..NodeOptions::default()
        }
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_turns() {
        let machine =
            Machine { cpus: 2, memory: 4 << 30, storage: 100 << 30, architecture: "amd64", ..Machine::default() };
        let (early, late) = (at("2026-11-24T04:00:00Z"), at("2026-11-24T05:00:00Z"));
        let first = status(&options(), &machine, &Health::default(), &[], &early);
        let before = first.conditions.clone().expect("conditions");
        let second = status(&options(), &machine, &Health::default(), &before, &late);
        assert!(is_same(&first, &second));
        let ready = second.conditions.as_ref().expect("conditions").last().expect("Ready");
        assert_eq!(
            (ready.last_transition_time.as_ref(), ready.last_heartbeat_time.as_ref()),
            (Some(&early), Some(&late))
        );

        let ill = Health { problem: Some("network plugin not ready".to_owned()), ..Health::default() };
        let third = status(&options(), &machine, &ill, &before, &late);
        assert!(!is_same(&first, &third));
        let ready = third.conditions.as_ref().expect("conditions").last().expect("Ready");
        assert_eq!((ready.status.as_str(), ready.last_transition_time.as_ref()), ("False", Some(&late)));
    }

    #[test]
    fn handlers_are_told_with_what_they_can() {
        let handler = |name: &str, users| NodeRuntimeHandler {
            name: Some(name.to_owned()),
            features: Some(NodeRuntimeHandlerFeatures {
                recursive_read_only_mounts: Some(true),
                user_namespaces: Some(users),
            }),
        };
        let machine = Machine { architecture: "amd64", ..Machine::default() };
        let now = at("2026-11-24T04:00:00Z");
        let features = Some(NodeFeatures { supplemental_groups_policy: Some(true) });
        let health = Health { handlers: vec![handler("", true), handler("runc", false)], features, problem: None };
        let told = status(&options(), &machine, &health, &[], &now);
        assert!(!is_same(&told, &status(&options(), &machine, &Health::default(), &[], &now)));
        let patch = patch(&told);
        let expected = json!([
            {"name": "", "features": {"recursiveReadOnlyMounts": true, "userNamespaces": true}},
            {"name": "runc", "features": {"recursiveReadOnlyMounts": true, "userNamespaces": false}},
        ]);
        assert_eq!(patch["status"]["runtimeHandlers"], expected);
        assert_eq!(patch["status"]["features"], json!({"supplementalGroupsPolicy": true}));
    }

    #[test]
    fn the_object_says_what_the_scheduler_needs() {
        let machine =
            Machine { cpus: 2, memory: 4 << 30, storage: 100 << 30, architecture: "amd64", ..Machine::default() };
        let options = NodeOptions { provider_id: Some("kind://a/b/c".to_owned()), ..options() };
        let node = node(&options, &machine, &Health::default(), &at("2026-11-24T04:00:00Z"));
        let status = node.status.expect("status");
        assert_eq!(status.capacity.expect("capacity")["memory"].0, "4194304Ki");
        assert_eq!(status.allocatable.expect("allocatable")["memory"].0, "4091904Ki");
        assert_eq!(status.daemon_endpoints.expect("endpoints").kubelet_endpoint.expect("endpoint").port, 10250);
        assert_eq!(node.metadata.labels.expect("labels")["kubernetes.io/hostname"], "n");
        let spec = node.spec.expect("spec");
        assert_eq!((spec.taints, spec.provider_id.as_deref()), (None, Some("kind://a/b/c")));
    }
}
