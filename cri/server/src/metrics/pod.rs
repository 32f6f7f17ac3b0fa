//! The metrics of a pod: its cgroup's, its network's, and those of its containers that run.

use berth_cri_proto::v1 as cri;

use super::container::{self, seconds};
use super::{Values, descriptors as d};
use crate::runtime::Runtime;
use crate::stats::interfaces::{self, Counters};
use crate::stats::pod::Pod;

/// Blocks.
pub(crate) fn of(runtime: &Runtime, pod: &Pod) -> cri::PodSandboxMetrics {
    let sandbox = &pod.sandbox;
    let metadata = sandbox.metadata();
    // The names of a container and of an image are empty in a pod's own rows, as in cAdvisor's.
    let mut values = Values::new([
        sandbox.plan.cgroup_parent.clone(),
        sandbox.id.clone(),
        String::new(),
        String::new(),
        metadata.name.clone(),
        metadata.namespace.clone(),
    ]);
    if let Some(cgroup) = pod.cgroup(runtime) {
        container::usage(&mut values, &cgroup);
    }
    for interface in interfaces::of(sandbox).unwrap_or_default() {
        let name = || [interface.name.as_str()];
        let Counters { bytes, packets, errors, dropped } = interface.received;
        values.put_for(&d::RECEIVE_BYTES, name(), bytes);
        values.put_for(&d::RECEIVE_PACKETS, name(), packets);
        values.put_for(&d::RECEIVE_ERRORS, name(), errors);
        values.put_for(&d::RECEIVE_DROPPED, name(), dropped);
        let Counters { bytes, packets, errors, dropped } = interface.sent;
        values.put_for(&d::TRANSMIT_BYTES, name(), bytes);
        values.put_for(&d::TRANSMIT_PACKETS, name(), packets);
        values.put_for(&d::TRANSMIT_ERRORS, name(), errors);
        values.put_for(&d::TRANSMIT_DROPPED, name(), dropped);
    }
    values.put(&d::START_TIME, seconds(sandbox.created_at));
    values.put(&d::LAST_SEEN, seconds(berth_sys::process::now()));
    cri::PodSandboxMetrics {
        pod_sandbox_id: sandbox.id.clone(),
        metrics: values.metrics,
        container_metrics: pod.containers.iter().map(|one| container::of(runtime, one, &metadata)).collect(),
    }
}
