//! The status of a pod, as the API shows it.
//!
//! Sources: `kubernetes@v1.37.2:pkg/kubelet/kubelet_pods.go#generateAPIPodStatus, getPhase` and
//! `pkg/kubelet/status/{generate,status_manager}.go`.

mod conditions;
mod containers;
mod phase;

use k8s_openapi::api::core::v1::{HostIP, PodIP, PodStatus};

use crate::plan::{self, Desired};
use crate::{Moment, Seen, qos};

/// The pod's status now. Builds on [`Seen::published`]: what did not change keeps its times.
pub fn status(desired: &Desired, seen: &Seen, now: Moment) -> PodStatus {
    let old = &seen.published;
    let Some(spec) = desired.spec() else { return old.clone() };
    let end = plan::end(desired, seen, now);
    let at_rest = !seen.containers.iter().any(crate::SeenContainer::may_run)
        && !seen.busy.keys().any(|target| matches!(target, plan::Target::Container(_) | plan::Target::Sandbox));
    let terminated = end.is_some() && at_rest;

    let init = containers::statuses(desired, seen, true, terminated, now);
    let main = containers::statuses(desired, seen, false, terminated, now);
    let mut phase = phase::of(spec, seen, &init, &main, terminated);
    let (mut reason, mut message) = (None, None);
    let terminal = |phase: &str| matches!(phase, "Failed" | "Succeeded");
    if let Some(latched) = old.phase.as_deref().filter(|phase| terminal(phase)) {
        // A pod does not come back from its end.
        phase = if latched == "Failed" { "Failed" } else { "Succeeded" };
    }
    if old.phase.as_deref() == Some(phase) {
        reason = old.reason.clone();
        message = old.message.clone();
    }
    if let Some(failed) = end.as_ref().and_then(|end| end.failed.as_ref()) {
        phase = "Failed";
        reason = Some(failed.reason.clone());
        message = Some(failed.message.clone());
    }

    let ips = pod_ips(desired, seen);
    let mut status = PodStatus {
        phase: Some(phase.to_owned()),
        reason,
        message,
        qos_class: old.qos_class.clone().or_else(|| Some(qos::class(spec).as_str().to_owned())),
        start_time: old.start_time.clone().or_else(|| Some(now.to_api())),
        host_ip: desired.host_ips.first().cloned(),
        host_ips: list(desired.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        pod_ip: ips.first().cloned(),
        pod_ips: list(ips.into_iter().map(|ip| PodIP { ip }).collect()),
        observed_generation: desired.pod.metadata.generation,
        nominated_node_name: old.nominated_node_name.clone(),
        resource_claim_statuses: old.resource_claim_statuses.clone(),
        ephemeral_container_statuses: containers::ephemeral(desired),
        ..PodStatus::default()
    };
    status.conditions = Some(conditions::of(desired, seen, phase, &init, &main, now));
    status.init_container_statuses = list(init);
    status.container_statuses = list(main);
    status
}

fn list<T>(list: Vec<T>) -> Option<Vec<T>> {
    if list.is_empty() { None } else { Some(list) }
}

/// The addresses of the newest sandbox; those of an ended pod stay as they were.
fn pod_ips(desired: &Desired, seen: &Seen) -> Vec<String> {
    let old = || seen.published.pod_ips.iter().flatten().map(|entry| entry.ip.clone()).collect::<Vec<_>>();
    if desired.spec().and_then(|spec| spec.host_network) == Some(true) {
        let known = old();
        return if known.is_empty() { desired.host_ips.clone() } else { known };
    }
    match seen.sandboxes.first() {
        Some(sandbox) if !sandbox.ips.is_empty() => sandbox.ips.clone(),
        _ => old(),
    }
}

#[cfg(test)]
mod tests;
