//! The status of each container.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, LinuxContainerUser, PodSpec, VolumeMountStatus,
};

use crate::plan::{Desired, Target, is_sidecar, starts_again, unhooked};
use crate::probe::Health;
use crate::seen::{ERROR_SHOWN, Failure, SeenContainer, State};
use crate::{Moment, Seen, backoff, names};

/// Bytes of termination messages in one pod's status.
const MESSAGES_LIMIT: usize = 12 << 10;

/// The statuses of the init or the main containers, in the order declared.
pub(super) fn statuses(
    desired: &Desired,
    seen: &Seen,
    init: bool,
    terminated: bool,
    now: Moment,
) -> Vec<ContainerStatus> {
    let Some(spec) = desired.spec() else { return Vec::new() };
    let list = if init { spec.init_containers.as_deref().unwrap_or_default() } else { &spec.containers };
    let all = spec.containers.len() + spec.init_containers.as_ref().map_or(0, Vec::len);
    let limit = MESSAGES_LIMIT / all.max(1);
    let mut out: Vec<ContainerStatus> = list
        .iter()
        .map(|container| {
            let mut status = one(desired, seen, spec, container, init, now);
            if terminated {
                close(&mut status);
            }
            for state in [&mut status.state, &mut status.last_state].into_iter().flatten() {
                if let Some(message) = state.terminated.as_mut().and_then(|ended| ended.message.as_mut()) {
                    truncate(message, limit);
                }
            }
            status
        })
        .collect();
    if !init {
        out.sort_by(|a, b| a.name.cmp(&b.name));
    }
    out
}

fn truncate(text: &mut String, limit: usize) {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

fn old_status<'a>(seen: &'a Seen, name: &str, init: bool) -> Option<&'a ContainerStatus> {
    let list = if init { &seen.published.init_container_statuses } else { &seen.published.container_statuses };
    list.iter().flatten().find(|status| status.name == name)
}

fn one(
    desired: &Desired,
    seen: &Seen,
    spec: &PodSpec,
    container: &Container,
    init: bool,
    now: Moment,
) -> ContainerStatus {
    let old = old_status(seen, &container.name, init);
    let mut instances = seen.containers.iter().filter(|candidate| candidate.name == container.name);
    let mut status = match instances.next() {
        Some(latest) => seen_status(desired, seen, container, latest, instances.next(), old),
        None => unseen_status(desired, seen, spec, container, init, old),
    };
    overlay(desired, seen, spec, container, init, &mut status, now);
    let running = status.state.as_ref().is_some_and(|state| state.running.is_some());
    let succeeded = status.state.as_ref().and_then(|s| s.terminated.as_ref()).is_some_and(|ended| ended.exit_code == 0);
    let health = seen.latest(&container.name).filter(|_| running).map(|at| Health::of(container, &at.id, seen));
    status.started = Some(health.is_some_and(|health| health.started));
    status.ready = if init && !is_sidecar(container) { succeeded } else { health.is_some_and(|health| health.ready) };
    status.volume_mounts = mounts(container);
    status
}

/// What a container shows that exists.
fn seen_status(
    desired: &Desired,
    seen: &Seen,
    container: &Container,
    latest: &SeenContainer,
    previous: Option<&SeenContainer>,
    old: Option<&ContainerStatus>,
) -> ContainerStatus {
    let mut last_state =
        previous.filter(|p| p.exit_code().is_some()).map(|p| state(desired, p)).or_else(|| inherited(latest, old));
    let mut count = i32::try_from(latest.attempt).unwrap_or(i32::MAX);
    let state = match (&latest.state, old.and_then(|old| old.state.as_ref()).and_then(|state| state.running.as_ref())) {
        (State::Unknown, Some(_)) => {
            count = old.map_or(count, |old| old.restart_count.saturating_add(1));
            lost("The container could not be located when the pod was terminated")
        }
        (State::Unknown, None) => waiting("ContainerCreating", None),
        (State::Created, _) => waiting(initial_reason(desired.spec()), None),
        // It counts as running once its postStart hook has ended.
        (State::Running { .. }, _) if unhooked(container, latest, seen) => {
            waiting(initial_reason(desired.spec()), None)
        }
        (State::Running { .. }, _) if seen.memory.hooks.get(&latest.id) == Some(&false) => {
            let failure = seen.memory.failures.get(&Target::Container(container.name.clone()));
            waiting("PostStartHookError", failure.map(|failure| failure.message.clone()))
        }
        _ => state(desired, latest),
    };
    if state.terminated.is_some() && latest.attempt == 0 && previous.is_none() && old.is_none() {
        last_state = None;
    }
    let resources = container.resources.clone();
    ContainerStatus {
        name: container.name.clone(),
        image: if latest.image.is_empty() { container.image.clone().unwrap_or_default() } else { latest.image.clone() },
        image_id: latest.image_ref.clone(),
        container_id: Some(id(desired, latest)),
        restart_count: count,
        state: Some(state),
        last_state,
        allocated_resources: resources.as_ref().and_then(|r| r.requests.clone()),
        resources,
        user: latest.user.as_ref().map(|(uid, gid, groups)| ContainerUser {
            linux: Some(LinuxContainerUser { uid: *uid, gid: *gid, supplemental_groups: Some(groups.clone()) }),
        }),
        ..ContainerStatus::default()
    }
}

/// The end of an instance that was removed since, as the last status told it.
fn inherited(latest: &SeenContainer, old: Option<&ContainerStatus>) -> Option<ContainerState> {
    let old = old?;
    let ended = old.state.as_ref().filter(|state| state.terminated.is_some());
    let other = ended
        .and_then(|state| state.terminated.as_ref())
        .and_then(|ended| ended.container_id.as_deref())
        .is_some_and(|id| !id.ends_with(latest.id.as_str()));
    match ended {
        Some(state) if other => Some(state.clone()),
        _ => old.last_state.clone().filter(|state| state.terminated.is_some()),
    }
}

/// What a container shows that the runtime does not have.
fn unseen_status(
    desired: &Desired,
    seen: &Seen,
    spec: &PodSpec,
    container: &Container,
    init: bool,
    old: Option<&ContainerStatus>,
) -> ContainerStatus {
    if let Some(old) = old.filter(|old| old.state.as_ref().is_some_and(|state| state.terminated.is_some())) {
        return old.clone();
    }
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(waiting(initial_reason(Some(spec)), None)),
        restart_count: old.map_or(0, |old| old.restart_count),
        last_state: old.and_then(|old| old.last_state.clone()),
        ..ContainerStatus::default()
    };
    let ran = old.and_then(|old| old.state.as_ref()).is_some_and(|state| state.running.is_some());
    let ended_before = status.last_state.as_ref().is_some_and(|state| state.terminated.is_some());
    if ran && !ended_before {
        let message = "The container could not be located when the pod was deleted.  The container used to be Running";
        status.last_state = Some(lost(message));
        if desired.pod.metadata.deletion_timestamp.is_none() {
            status.restart_count = status.restart_count.saturating_add(1);
        }
    }
    let main_exists = spec.containers.iter().any(|main| {
        seen.latest(&main.name).is_some_and(|c| seen.sandboxes.first().is_some_and(|sandbox| sandbox.id == c.sandbox))
    });
    if init && main_exists {
        let message = "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally";
        status.state = Some(ContainerState {
            terminated: Some(ContainerStateTerminated {
                reason: Some("Completed".to_owned()),
                message: Some(message.to_owned()),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        });
    }
    status
}

fn initial_reason(spec: Option<&PodSpec>) -> &'static str {
    if spec.and_then(|spec| spec.init_containers.as_ref()).is_some_and(|list| !list.is_empty()) {
        "PodInitializing"
    } else {
        "ContainerCreating"
    }
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ContainerState::default()
    }
}

fn lost(message: &str) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some(message.to_owned()),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

/// `RUNTIME://ID`.
fn id(desired: &Desired, container: &SeenContainer) -> String {
    format!("{}://{}", desired.runtime, container.id)
}

fn state(desired: &Desired, container: &SeenContainer) -> ContainerState {
    match &container.state {
        State::Created | State::Unknown => waiting("ContainerCreating", None),
        State::Running { started } => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(started.to_api()) }),
            ..ContainerState::default()
        },
        State::Exited { started, finished, code, reason, message } => ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: *code,
                reason: Some(match (reason.as_str(), code) {
                    ("", 0) => "Completed".to_owned(),
                    ("", _) => "Error".to_owned(),
                    (known, _) => known.to_owned(),
                }),
                message: Some(message.clone()).filter(|message| !message.is_empty()),
                started_at: Some(started.to_api()),
                finished_at: Some(finished.to_api()),
                container_id: Some(id(desired, container)),
                signal: None,
            }),
            ..ContainerState::default()
        },
    }
}

/// Shows why a container that should be started is not.
fn overlay(
    desired: &Desired,
    seen: &Seen,
    spec: &PodSpec,
    container: &Container,
    init: bool,
    status: &mut ContainerStatus,
    now: Moment,
) {
    let latest = seen.latest(&container.name);
    let to_start = match latest.map(|latest| &latest.state) {
        None | Some(State::Created) => true,
        Some(State::Running { .. } | State::Unknown) => false,
        Some(State::Exited { code, .. }) => {
            latest.is_some_and(|latest| starts_again(spec, container, init, latest, *code, seen))
        }
    };
    let ended_before = status.state.as_ref().is_some_and(|state| state.terminated.is_some());
    if !to_start || (latest.is_none() && ended_before) || crate::plan::end(desired, seen, now).is_some() {
        return;
    }
    let Some((reason, message)) = why_not(desired, seen, container, latest, now) else { return };
    if ended_before {
        status.last_state = status.state.take();
    }
    status.state = Some(waiting(reason, Some(message)));
}

fn why_not(
    desired: &Desired,
    seen: &Seen,
    container: &Container,
    latest: Option<&SeenContainer>,
    now: Moment,
) -> Option<(&'static str, String)> {
    if let Some(refusal) = &desired.refused {
        return Some(("CreateContainerConfigError", refusal.to_string()));
    }
    let failure = |target: Target| seen.memory.failures.get(&target);
    if let Some(failure) = failure(Target::Volumes).filter(|failure| failure.permanent) {
        return Some((failure.reason, failure.message.clone()));
    }
    if let Some(failure) = failure(Target::Image(container.name.clone())) {
        return Some(pull_failure(container, failure, now));
    }
    let start = failure(Target::Container(container.name.clone()));
    let fresh = |failure: &&Failure| failure.at.plus_seconds(ERROR_SHOWN) > now;
    if let Some(failure) = start.filter(fresh) {
        return Some((failure.reason, failure.message.clone()));
    }
    if let Some(SeenContainer { state: State::Exited { finished, .. }, backoff: carried, created, .. }) = latest {
        let delay = backoff::delay(*carried, *created, *finished);
        if finished.plus_seconds(delay) > now {
            let text = format!(
                "back-off {} restarting failed container={} pod={}",
                backoff::go_duration(delay),
                container.name,
                names::describe(&desired.pod)
            );
            return Some(("CrashLoopBackOff", text));
        }
    }
    if let Some(failure) = start {
        return Some((failure.reason, failure.message.clone()));
    }
    if matches!(latest, Some(SeenContainer { state: State::Exited { .. }, .. })) {
        return None;
    }
    // Volumes and sandboxes that fail for a while leave the pod in ContainerCreating; the reason is there to read.
    let shared = failure(Target::Volumes).or_else(|| failure(Target::Sandbox)).or_else(|| failure(Target::Host))?;
    let initializing = initial_reason(desired.spec());
    Some((initializing, shared.message.clone()))
}

fn pull_failure(container: &Container, failure: &Failure, now: Moment) -> (&'static str, String) {
    // Names that no retry helps stay as they are.
    if failure.reason != "ErrImagePull" || failure.at.plus_seconds(ERROR_SHOWN) > now {
        return (failure.reason, failure.message.clone());
    }
    let image = container.image.as_deref().unwrap_or_default();
    ("ImagePullBackOff", format!("Back-off pulling image {image:?}: {}: {}", failure.reason, failure.message))
}

/// A pod that is over: what never ran will not.
fn close(status: &mut ContainerStatus) {
    let Some(state) = &mut status.state else { return };
    if state.terminated.is_some() || state.running.is_some() {
        return;
    }
    let last = status.last_state.take().filter(|last| last.terminated.is_some());
    status.state = Some(last.unwrap_or_else(|| lost("The container could not be located when the pod was terminated")));
    status.started = Some(false);
    status.ready = false;
}

fn mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let list: Vec<VolumeMountStatus> = container
        .volume_mounts
        .iter()
        .flatten()
        .map(|mount| VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: mount.read_only,
            recursive_read_only: (mount.read_only == Some(true)).then(|| "Disabled".to_owned()),
            ..VolumeMountStatus::default()
        })
        .collect();
    (!list.is_empty()).then_some(list)
}

/// Ephemeral containers are refused, without harm to the pod that they were added to.
pub(super) fn ephemeral(desired: &Desired) -> Option<Vec<ContainerStatus>> {
    let list: Vec<ContainerStatus> = desired
        .spec()?
        .ephemeral_containers
        .iter()
        .flatten()
        .map(|container| ContainerStatus {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            state: Some(waiting(
                "CreateContainerConfigError",
                Some("spec.ephemeralContainers: Berth does not implement this field".to_owned()),
            )),
            ..ContainerStatus::default()
        })
        .collect();
    (!list.is_empty()).then_some(list)
}
