//! What part a container plays in its pod, and what follows for its start, restart and end.
//!
//! Source: `kubernetes@v1.37.2:pkg/api/v1/pod/util.go#IsRestartableInitContainer, ContainerShouldRestart`,
//! `pkg/kubelet/kuberuntime/kuberuntime_termination_order.go`.

use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::is_hooked;
use crate::Seen;
use crate::probe::Health;
use crate::seen::{SeenContainer, State};

/// Whether an init container is a sidecar: it goes on beside the containers that come after it.
pub(crate) fn is_sidecar(init: &Container) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

/// Always, OnFailure or Never: the container's own, or its pod's.
pub(crate) fn policy<'a>(spec: &'a PodSpec, container: &'a Container) -> &'a str {
    container.restart_policy.as_deref().or(spec.restart_policy.as_deref()).unwrap_or("Always")
}

/// Whether a container that ended with `code` starts again.
pub(crate) fn restarts(spec: &PodSpec, container: &Container, init: bool, code: i32) -> bool {
    match policy(spec, container) {
        "Never" => false,
        "OnFailure" => code != 0,
        // An init container that succeeded is done whatever the pod's policy.
        _ => !init || code != 0 || is_sidecar(container),
    }
}

/// Whether an ended instance starts again: by its code, or because it was ended for a failed probe. One that obeys the
/// stop signal with code 0 must not count as a success then.
pub(crate) fn starts_again(
    spec: &PodSpec,
    container: &Container,
    init: bool,
    instance: &SeenContainer,
    code: i32,
    seen: &Seen,
) -> bool {
    let ended_by_probe = seen.health.get(&instance.id).is_some_and(|health| health.failed.is_some());
    restarts(spec, container, init, code) || (ended_by_probe && policy(spec, container) != "Never")
}

/// The newest instance of a container in this sandbox.
fn here<'a>(name: &str, sandbox: &str, seen: &'a Seen) -> Option<&'a SeenContainer> {
    seen.containers.iter().find(|container| container.name == name && container.sandbox == sandbox)
}

/// Whether main containers may start: a main one was made in this sandbox already, or every init container lets them.
pub(crate) fn initialized(spec: &PodSpec, sandbox: &str, seen: &Seen) -> bool {
    let init = spec.init_containers.as_deref().unwrap_or_default();
    spec.containers.iter().any(|container| here(&container.name, sandbox, seen).is_some())
        || (0..init.len()).all(|index| lets_next(init, index, sandbox, seen))
}

/// Whether the init container at `index` lets the next one begin: it has succeeded, or is a sidecar that has started. A
/// sidecar that fails later does not hold up again what had begun.
pub(crate) fn lets_next(init: &[Container], index: usize, sandbox: &str, seen: &Seen) -> bool {
    let Some((container, after)) = init.get(index..).and_then(|rest| rest.split_first()) else { return true };
    let instance = here(&container.name, sandbox, seen);
    if !is_sidecar(container) {
        return instance.and_then(SeenContainer::exit_code) == Some(0);
    }
    let started = |instance: &SeenContainer| {
        matches!(instance.state, State::Running { .. })
            && is_hooked(container, &instance.id, seen)
            && Health::of(container, &instance.id, seen).started
    };
    instance.is_some_and(started) || after.iter().any(|later| here(&later.name, sandbox, seen).is_some())
}

/// Whether it is this container's turn to be ended: sidecars go last, the first declared at the very end.
pub(crate) fn may_stop(spec: Option<&PodSpec>, name: &str, seen: &Seen) -> bool {
    let Some(spec) = spec else { return true };
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let Some(index) = init.iter().position(|container| container.name == name && is_sidecar(container)) else {
        return true;
    };
    let mut before = init[index + 1..].iter().chain(&spec.containers);
    !before.any(|container| seen.containers.iter().any(|c| c.name == container.name && c.may_run()))
}

/// Whether a container declares a preStop hook.
pub(crate) fn has_pre_stop(spec: Option<&PodSpec>, name: &str) -> bool {
    let declared = spec.into_iter().flat_map(crate::qos::containers).find(|container| container.name == name);
    declared.and_then(|container| container.lifecycle.as_ref()).is_some_and(|lifecycle| lifecycle.pre_stop.is_some())
}
