//! A pod's phase.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, PodSpec};

use crate::Seen;
use crate::plan::{is_sidecar, restarts, starts_again};

/// How a container counts for the phase.
enum Counts {
    /// Not yet run.
    Waiting,
    Running,
    /// Ended (perhaps about to start again), with this code.
    Stopped(i32),
}

fn counts(status: &ContainerStatus) -> Counts {
    let code = |state: Option<&ContainerState>| state.and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code);
    let state = status.state.as_ref();
    if state.is_some_and(|state| state.running.is_some()) {
        Counts::Running
    } else if let Some(code) = code(state).or_else(|| code(status.last_state.as_ref())) {
        Counts::Stopped(code)
    } else {
        Counts::Waiting
    }
}

/// Pending, Running, Succeeded or Failed. `terminated`: the pod is to end, and nothing of it runs any more.
pub(super) fn of(
    spec: &PodSpec,
    seen: &Seen,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
    terminated: bool,
) -> &'static str {
    let (mut init_pending, mut sidecars) = (false, 0);
    for status in init {
        let Some(container) = spec.init_containers.iter().flatten().find(|c| c.name == status.name) else { continue };
        if is_sidecar(container) {
            let running = matches!(counts(status), Counts::Running);
            sidecars += usize::from(running);
            init_pending |= matches!(counts(status), Counts::Waiting) || (running && status.started != Some(true));
            continue;
        }
        match counts(status) {
            Counts::Waiting | Counts::Running => init_pending = true,
            Counts::Stopped(0) => {}
            Counts::Stopped(code) if !restarts(spec, container, true, code) => return "Failed",
            // It failed and starts again.
            Counts::Stopped(_) => init_pending = true,
        }
    }
    let (mut waiting, mut running, mut stopped, mut succeeded, mut final_) = (0, 0, 0, 0, 0);
    for status in main {
        match counts(status) {
            Counts::Waiting => waiting += 1,
            Counts::Running => running += 1,
            Counts::Stopped(code) => {
                stopped += 1;
                succeeded += usize::from(code == 0);
                let container = spec.containers.iter().find(|container| container.name == status.name);
                let again = container.is_some_and(|container| match seen.latest(&status.name) {
                    Some(latest) => starts_again(spec, container, false, latest, code, seen),
                    None => restarts(spec, container, false, code),
                });
                final_ += usize::from(!again);
            }
        }
    }
    if terminated {
        return if stopped > 0 && succeeded == main.len() { "Succeeded" } else { "Failed" };
    }
    if waiting > 0 || main.is_empty() || (init_pending && running == 0 && stopped == 0) {
        "Pending"
    } else if running + sidecars > 0 || final_ < stopped {
        "Running"
    } else if succeeded == stopped {
        "Succeeded"
    } else {
        "Failed"
    }
}
