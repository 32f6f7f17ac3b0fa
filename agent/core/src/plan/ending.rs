//! The end of a pod: its containers with grace, its sandbox, and, once it is deleted, everything else.

use k8s_openapi::api::core::v1::PodSpec;

use super::role::{has_pre_stop, may_stop};
use super::{End, Plan, Step, Target};
use crate::{Moment, Presence, Seen};

pub(super) fn plan(spec: Option<&PodSpec>, seen: &Seen, end: &End, now: Moment, plan: &mut Plan) {
    abandon(seen, end, plan);
    let began = seen.memory.ending_since.unwrap_or(now);
    let running = stop_containers(spec, seen, end, began, now, plan);
    // A container or sandbox that is just being made must be seen before it can be ended.
    let making = seen.busy.iter().any(|(target, _)| matches!(target, Target::Container(_) | Target::Sandbox));
    if running || making {
        return;
    }
    take_down(seen, end, now, plan);
}

/// Steps on the way to a running pod that can be given up at once.
fn abandon(seen: &Seen, end: &End, plan: &mut Plan) {
    for (target, step) in &seen.busy {
        if matches!(step, Step::PullImage { .. } | Step::PrepareVolumes) {
            plan.push(Step::Abandon(target.clone()), end.why);
        }
    }
}

/// Asks every running container to end, each in its turn; `true` while any runs.
fn stop_containers(
    spec: Option<&PodSpec>,
    seen: &Seen,
    end: &End,
    began: Moment,
    now: Moment,
    plan: &mut Plan,
) -> bool {
    let deadline = began.plus_seconds(end.grace);
    let grace = deadline.seconds_from(now).max(1);
    let mut running = false;
    for container in seen.containers.iter().filter(|container| container.may_run()) {
        running = true;
        if !may_stop(spec, &container.name, seen) {
            // Hooks wait for nobody: the grace period has begun for all.
            if has_pre_stop(spec, &container.name) && !seen.memory.pre_stopped.contains(&container.id) {
                plan.push(Step::PreStop { container: container.name.clone(), id: container.id.clone() }, end.why);
            }
            continue;
        }
        let step = Step::StopContainer {
            container: container.name.clone(),
            id: container.id.clone(),
            grace,
            deadline,
            message: format!("Stopping container {}", container.name),
        };
        match seen.busy.get(&step.target()) {
            // A shorter grace period than the one under way overtakes it.
            Some(Step::StopContainer { deadline: under_way, .. }) if deadline < *under_way => plan.push(step, end.why),
            Some(_) => {}
            None => {
                plan.attempt(seen, now, step, end.why);
            }
        }
    }
    running
}

/// Everything but processes, in an order in which nothing is taken away from under what still uses it.
fn take_down(seen: &Seen, end: &End, now: Moment, plan: &mut Plan) {
    let mut sandboxes_stopped = true;
    for sandbox in &seen.sandboxes {
        if !seen.memory.stopped.contains(&sandbox.id) {
            sandboxes_stopped = false;
            plan.attempt(seen, now, Step::StopSandbox { id: sandbox.id.clone() }, end.why);
        }
    }
    if seen.volumes != Presence::Absent && !seen.is_busy(&Target::Volumes) {
        plan.attempt(seen, now, Step::ClearVolumes, end.why);
    }
    if !sandboxes_stopped {
        return;
    }
    if end.remove {
        for sandbox in &seen.sandboxes {
            plan.attempt(seen, now, Step::RemoveSandbox { id: sandbox.id.clone() }, end.why);
        }
        let orphans = seen.containers.iter().filter(|c| seen.sandboxes.iter().all(|s| s.id != c.sandbox));
        for container in orphans {
            let step = Step::RemoveContainer { container: container.name.clone(), id: container.id.clone() };
            plan.attempt(seen, now, step, end.why);
        }
        if !seen.sandboxes.is_empty() || !seen.containers.is_empty() {
            return;
        }
    }
    if seen.cgroup != Presence::Absent {
        plan.attempt(seen, now, Step::ClearCgroup, end.why);
        return;
    }
    if !end.remove || seen.volumes != Presence::Absent {
        return;
    }
    if seen.files != Presence::Absent {
        plan.attempt(seen, now, Step::ClearFiles, end.why);
    } else if !seen.memory.gone {
        plan.attempt(seen, now, Step::ReportGone, end.why);
    }
}
