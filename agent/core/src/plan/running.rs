//! A pod on its way to running, and kept there.

use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::role::{initialized, is_sidecar, lets_next, may_stop, policy, starts_again};
use super::{Desired, Plan, Step, Target};
use crate::probe::Kind;
use crate::seen::{ERROR_SHOWN, SeenContainer, State};
use crate::{Moment, Presence, Seen, backoff};

/// Dead instances kept for each container name: the newest, and the one before it for `kubectl logs --previous`.
const INSTANCES_KEPT: usize = 2;

/// Seconds that pass at most from one sandbox to the next.
const SANDBOX_BACKOFF: i64 = 60;

pub(super) fn plan(desired: &Desired, seen: &Seen, now: Moment, plan: &mut Plan) {
    let Some(spec) = desired.spec() else { return };
    if is_done(spec, seen) {
        rest(spec, seen, now, plan);
    } else {
        match sandbox_need(spec, seen) {
            SandboxNeed::Usable(id) => in_sandbox(spec, &id, seen, now, plan),
            SandboxNeed::Fresh { attempt, why } => fresh_sandbox(spec, attempt, why, seen, now, plan),
        }
    }
    collect_garbage(seen, now, plan);
}

/// Whether the newest sandbox will do.
pub(crate) enum SandboxNeed {
    /// This one.
    Usable(String),
    /// A new one.
    Fresh {
        /// Which try it is.
        attempt: u32,
        /// Why, in the words of the PodReadyToStartContainers condition.
        why: &'static str,
    },
}

pub(crate) fn sandbox_need(spec: &PodSpec, seen: &Seen) -> SandboxNeed {
    let Some(newest) = seen.sandboxes.first() else {
        return SandboxNeed::Fresh { attempt: 0, why: "No sandbox for pod can be found" };
    };
    let host_network = spec.host_network == Some(true);
    let why = if seen.sandboxes.iter().filter(|sandbox| sandbox.ready).count() > 1 {
        "Multiple sandboxes are ready for the pod"
    } else if !newest.ready {
        "The sandbox is not ready"
    } else if newest.host_network != host_network {
        "The sandbox has another network mode"
    } else if !host_network && newest.ips.is_empty() {
        "The sandbox has no IP address"
    } else {
        return SandboxNeed::Usable(newest.id.clone());
    };
    SandboxNeed::Fresh { attempt: newest.attempt.saturating_add(1), why }
}

/// Whether every container has ended for good, or an init container has failed for good.
pub(crate) fn is_done(spec: &PodSpec, seen: &Seen) -> bool {
    let ended_for_good = |container: &Container, init| {
        seen.latest(&container.name)
            .and_then(|latest| Some((latest, latest.exit_code()?)))
            .is_some_and(|(latest, code)| !starts_again(spec, container, init, latest, code, seen))
    };
    let init_failed = spec.init_containers.iter().flatten().any(|container| {
        ended_for_good(container, true) && seen.latest(&container.name).and_then(SeenContainer::exit_code) != Some(0)
    });
    let lives = spec.containers.iter().any(|c| seen.latest(&c.name).is_some_and(SeenContainer::may_run));
    let all_ended =
        !spec.containers.is_empty() && spec.containers.iter().all(|container| ended_for_good(container, false));
    (init_failed || all_ended) && !lives
}

/// A pod that is done keeps its containers for their logs, and nothing that costs.
fn rest(spec: &PodSpec, seen: &Seen, now: Moment, plan: &mut Plan) {
    const WHY: &str = "all containers have ended";
    // Sidecars outlive the others, and then go in their own time.
    let mut lives = false;
    for container in seen.containers.iter().filter(|container| container.may_run()) {
        lives = true;
        if may_stop(Some(spec), &container.name, seen) {
            let grace = grace(spec, None);
            let message = format!("Stopping container {}", container.name);
            plan.attempt(seen, now, stop(container, grace, now, message), WHY);
        }
    }
    if lives {
        return;
    }
    let mut stopped = true;
    for sandbox in seen.sandboxes.iter().filter(|sandbox| !seen.memory.stopped.contains(&sandbox.id)) {
        stopped = false;
        plan.attempt(seen, now, Step::StopSandbox { id: sandbox.id.clone() }, WHY);
    }
    if seen.volumes != Presence::Absent {
        plan.attempt(seen, now, Step::ClearVolumes, WHY);
    }
    if stopped && seen.cgroup != Presence::Absent {
        plan.attempt(seen, now, Step::ClearCgroup, WHY);
    }
}

fn fresh_sandbox(spec: &PodSpec, attempt: u32, why: &'static str, seen: &Seen, now: Moment, plan: &mut Plan) {
    // What still runs in the old one goes first: no container may run twice.
    let grace = grace(spec, None);
    let mut clear = true;
    for container in seen.containers.iter().filter(|container| container.may_run()) {
        clear = false;
        let step = stop(container, grace, now, format!("Stopping container {}", container.name));
        plan.attempt(seen, now, step, why);
    }
    if !clear {
        return;
    }
    for sandbox in &seen.sandboxes {
        if !seen.memory.stopped.contains(&sandbox.id) {
            clear = false;
            plan.attempt(seen, now, Step::StopSandbox { id: sandbox.id.clone() }, why);
        }
    }
    if !clear {
        return;
    }
    if seen.files != Presence::Present || seen.cgroup != Presence::Present {
        plan.attempt(seen, now, Step::PrepareHost, why);
        return;
    }
    // The first replacement comes at once; sandboxes that keep dying come ever slower.
    let last = seen.sandboxes.first().filter(|_| attempt > 1).map(|sandbox| sandbox.created);
    let due = last.map(|created| created.plus_seconds(backoff::doubled(1, SANDBOX_BACKOFF, attempt - 1)));
    match due.filter(|due| *due > now) {
        Some(until) => plan.push(Step::Wait { until }, "sandboxes die one after another"),
        None => drop(plan.attempt(seen, now, Step::CreateSandbox { attempt }, why)),
    }
    prepare_volumes(seen, now, plan);
    // The first image can come while the sandbox is being made.
    let first = spec.init_containers.iter().flatten().next().or(spec.containers.first());
    if let Some(container) = first {
        image(container, seen, now, plan);
    }
}

fn prepare_volumes(seen: &Seen, now: Moment, plan: &mut Plan) {
    if seen.volumes != Presence::Present {
        plan.attempt(seen, now, Step::PrepareVolumes, "containers need them");
    }
}

fn in_sandbox(spec: &PodSpec, sandbox: &str, seen: &Seen, now: Moment, plan: &mut Plan) {
    if seen.files != Presence::Present || seen.cgroup != Presence::Present {
        // Adopted from an earlier run: brought up to date, while containers go on.
        plan.attempt(seen, now, Step::PrepareHost, "adopted");
    }
    prepare_volumes(seen, now, plan);
    let initialized = initialized(spec, sandbox, seen);
    let init = spec.init_containers.as_deref().unwrap_or_default();
    for (index, container) in init.iter().enumerate() {
        let passed = initialized || lets_next(init, index, sandbox, seen);
        if is_sidecar(container) || !passed {
            advance(spec, container, true, sandbox, seen, now, plan);
        }
        if !passed {
            return;
        }
    }
    for container in &spec.containers {
        if advance(spec, container, false, sandbox, seen, now, plan) == Progress::UnderWay {
            return;
        }
    }
}

/// Whether the next container may begin.
#[derive(PartialEq, Eq)]
enum Progress {
    /// Started, ended for good, or failed and waiting.
    Settled,
    /// On its way.
    UnderWay,
}

fn advance(
    spec: &PodSpec,
    container: &Container,
    init: bool,
    sandbox: &str,
    seen: &Seen,
    now: Moment,
    plan: &mut Plan,
) -> Progress {
    let target = Target::Container(container.name.clone());
    if seen.is_busy(&target) {
        return Progress::UnderWay;
    }
    let Some(latest) = seen.latest(&container.name) else {
        return create(container, sandbox, None, seen, now, plan);
    };
    match &latest.state {
        State::Running { .. } => {
            if unhooked(container, latest, seen) {
                let step = Step::PostStart { container: container.name.clone(), id: latest.id.clone() };
                plan.attempt(seen, now, step, "it has started");
                return Progress::UnderWay;
            }
            keep_or_replace(spec, container, init, latest, seen, now, plan);
            Progress::Settled
        }
        State::Unknown => {
            // It may run: it must be ended before another one starts.
            let grace = grace(spec, None);
            let message = "Container is in \"unknown\" state, try killing it before restart".to_owned();
            plan.attempt(seen, now, stop(latest, grace, now, message), "its state is unknown");
            Progress::Settled
        }
        State::Created
            if latest.sandbox != sandbox
                || seen.memory.failures.get(&target).is_some_and(|failure| failure.at >= latest.created) =>
        {
            // It never ran and never will: the next one takes its number.
            let step = Step::RemoveContainer { container: latest.name.clone(), id: latest.id.clone() };
            plan.attempt(seen, now, step, "it did not start");
            Progress::UnderWay
        }
        State::Created => {
            let step = Step::StartContainer { container: container.name.clone(), id: latest.id.clone() };
            plan.attempt(seen, now, step, "it was created");
            Progress::UnderWay
        }
        State::Exited { finished, code, .. } => {
            // A new sandbox runs init containers again, whatever they did before.
            let rerun = init && latest.sandbox != sandbox;
            if !rerun && !starts_again(spec, container, init, latest, *code, seen) {
                return Progress::Settled;
            }
            let due = finished.plus_seconds(backoff::delay(latest.backoff, latest.created, *finished));
            if due > now && !(rerun && *code == 0) {
                // A failed start is shown first, and then that it waits.
                let shown = seen.memory.failures.get(&target).map(|failure| failure.at.plus_seconds(ERROR_SHOWN));
                if let Some(until) = shown.filter(|until| *until > now) {
                    plan.push(Step::Wait { until }, "the failed start is shown first");
                }
                plan.push(Step::Wait { until: due }, format!("back-off restarting container {}", container.name));
                return Progress::Settled;
            }
            create(container, sandbox, Some((latest, *finished)), seen, now, plan)
        }
    }
}

fn create(
    container: &Container,
    sandbox: &str,
    predecessor: Option<(&SeenContainer, Moment)>,
    seen: &Seen,
    now: Moment,
    plan: &mut Plan,
) -> Progress {
    let target = Target::Container(container.name.clone());
    if let Some(failure) = seen.memory.waiting(&target, now) {
        if !failure.permanent {
            plan.push(Step::Wait { until: failure.retry_at(&target) }, failure.message.clone());
        }
        return Progress::Settled;
    }
    let Some(image_ref) = image(container, seen, now, plan) else {
        // A pull that waits lets the next container begin; one under way does not.
        let waits = seen.memory.waiting(&Target::Image(container.name.clone()), now).is_some();
        return if waits { Progress::Settled } else { Progress::UnderWay };
    };
    if seen.volumes != Presence::Present || seen.files != Presence::Present || seen.cgroup != Presence::Present {
        return Progress::UnderWay;
    }
    let (attempt, backoff) = match predecessor {
        Some((old, finished)) => {
            (old.attempt.saturating_add(1), backoff::carried_next(old.backoff, old.created, finished))
        }
        None => (0, 0),
    };
    let step = Step::CreateContainer {
        container: container.name.clone(),
        sandbox: sandbox.to_owned(),
        image_ref,
        attempt,
        backoff,
    };
    plan.attempt(seen, now, step, if predecessor.is_some() { "it has ended" } else { "it does not exist" });
    Progress::UnderWay
}

/// The reference of a container's image, once it is there; asks for it otherwise.
fn image(container: &Container, seen: &Seen, now: Moment, plan: &mut Plan) -> Option<String> {
    let image = container.image.as_deref().unwrap_or_default();
    if let Some(state) = seen.memory.images.get(&container.name).filter(|state| state.image == image) {
        return Some(state.reference.clone());
    }
    let target = Target::Image(container.name.clone());
    if let Some(failure) = seen.memory.waiting(&target, now).filter(|failure| !failure.permanent) {
        // The error becomes a back-off without anything happening: the status must be looked at then.
        let shown = failure.at.plus_seconds(ERROR_SHOWN);
        if shown > now {
            plan.push(Step::Wait { until: shown }, "the pull's error is shown first");
        }
    }
    let step = Step::PullImage { container: container.name.clone(), image: image.to_owned() };
    plan.attempt(seen, now, step, "a container needs it");
    None
}

/// Whether the instance `id` is through with its postStart hook, or has none.
pub fn is_hooked(container: &Container, id: &str, seen: &Seen) -> bool {
    let declared = container.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.post_start.is_some());
    !declared || seen.memory.hooks.get(id) == Some(&true)
}

/// Whether the container's postStart hook has yet to run for this instance.
pub(crate) fn unhooked(container: &Container, latest: &SeenContainer, seen: &Seen) -> bool {
    let declared = container.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.post_start.is_some());
    declared && !seen.memory.hooks.contains_key(&latest.id)
}

fn keep_or_replace(
    spec: &PodSpec,
    container: &Container,
    init: bool,
    latest: &SeenContainer,
    seen: &Seen,
    now: Moment,
    plan: &mut Plan,
) {
    let image = container.image.as_deref().unwrap_or_default();
    let name = &container.name;
    let subject = if init { "Init container" } else { "Container" };
    if !latest.image.is_empty() && latest.image != image {
        let message = format!("{subject} {name} definition changed, will be restarted");
        plan.attempt(seen, now, stop(latest, grace(spec, None), now, message), "its image changed");
    } else if seen.memory.hooks.get(&latest.id) == Some(&false) {
        let message = "FailedPostStartHook".to_owned();
        plan.attempt(seen, now, stop(latest, grace(spec, None), now, message), "its postStart hook failed");
    } else if let Some(kind) = seen.health.get(&latest.id).and_then(|health| health.failed) {
        let (what, why) = match kind {
            Kind::Startup => ("startup", "its startup probe failed"),
            Kind::Liveness | Kind::Readiness => ("liveness", "its liveness probe failed"),
        };
        let goes_on = !init && policy(spec, container) != "Never";
        let after = if goes_on { ", will be restarted" } else { "" };
        let message = format!("{subject} {name} failed {what} probe{after}");
        let own = kind.of(container).and_then(|probe| probe.termination_grace_period_seconds);
        plan.attempt(seen, now, stop(latest, grace(spec, own), now, message), why);
    }
}

/// Seconds for a container to end: its probe's own, or its pod's.
fn grace(spec: &PodSpec, own: Option<i64>) -> i64 {
    own.or(spec.termination_grace_period_seconds).unwrap_or(30).max(super::MINIMUM_GRACE)
}

fn stop(container: &SeenContainer, grace: i64, now: Moment, message: String) -> Step {
    Step::StopContainer {
        container: container.name.clone(),
        id: container.id.clone(),
        grace,
        deadline: now.plus_seconds(grace),
        message,
    }
}

/// Removes dead instances beyond those kept, and old sandboxes without containers.
fn collect_garbage(seen: &Seen, now: Moment, plan: &mut Plan) {
    for (index, container) in seen.containers.iter().enumerate() {
        let newer = seen.containers[..index].iter().filter(|other| other.name == container.name).count();
        let never_ran = matches!(container.state, State::Created) && newer > 0;
        let surplus = newer >= INSTANCES_KEPT && !container.may_run();
        if never_ran || surplus {
            let step = Step::RemoveContainer { container: container.name.clone(), id: container.id.clone() };
            plan.attempt(seen, now, step, "newer instances exist");
        }
    }
    for sandbox in seen.sandboxes.iter().skip(1) {
        let empty = seen.containers.iter().all(|container| container.sandbox != sandbox.id);
        if !empty || sandbox.ready {
            continue;
        }
        // A sandbox that is not ready may still hold an address.
        let id = sandbox.id.clone();
        let step =
            if seen.memory.stopped.contains(&id) { Step::RemoveSandbox { id } } else { Step::StopSandbox { id } };
        plan.attempt(seen, now, step, "a newer sandbox exists");
    }
}
