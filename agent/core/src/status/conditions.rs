//! A pod's conditions.

use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition};

use crate::plan::{Desired, SandboxNeed, is_sidecar, sandbox_need};
use crate::{Moment, Seen};

/// What the agent owns; every other condition is left as the API has it.
const OWN: [&str; 5] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

struct Verdict {
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    fn holds() -> Self {
        Self { holds: true, reason: None, message: None }
    }

    fn not(reason: &'static str, message: Option<String>) -> Self {
        Self { holds: false, reason: Some(reason), message }
    }
}

pub(super) fn of(
    desired: &Desired,
    seen: &Seen,
    phase: &str,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
    now: Moment,
) -> Vec<PodCondition> {
    let declared = desired.pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let mut out: Vec<PodCondition> =
        declared.iter().filter(|condition| !OWN.contains(&condition.type_.as_str())).cloned().collect();
    let sidecars: Vec<&ContainerStatus> = init.iter().filter(|status| sidecar(desired, &status.name)).collect();
    let serving: Vec<&ContainerStatus> = sidecars.iter().copied().chain(main).collect();
    let containers = containers_ready(phase, &serving);
    let ready = ready(desired, &out, phase, &serving);
    let verdicts = [
        ("PodReadyToStartContainers", sandbox(desired, seen)),
        ("Initialized", initialized(phase, init, &sidecars, main)),
        ("Ready", ready),
        ("ContainersReady", containers),
        ("PodScheduled", Verdict::holds()),
    ];
    for (type_, verdict) in verdicts {
        out.push(condition(desired, seen, type_, verdict, now));
    }
    out
}

fn sidecar(desired: &Desired, name: &str) -> bool {
    let init = desired.spec().and_then(|spec| spec.init_containers.as_ref());
    init.into_iter().flatten().any(|container| container.name == name && is_sidecar(container))
}

fn condition(desired: &Desired, seen: &Seen, type_: &str, verdict: Verdict, now: Moment) -> PodCondition {
    let status = if verdict.holds { "True" } else { "False" };
    let find = |list: Option<&Vec<PodCondition>>| {
        list.into_iter().flatten().find(|old| old.type_ == type_ && old.status == status)?.last_transition_time.clone()
    };
    // The scheduler's own PodScheduled is in the declared pod even before anything was published.
    let declared = desired.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let since = find(seen.published.conditions.as_ref()).or_else(|| find(declared));
    PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.map(str::to_owned),
        message: verdict.message,
        observed_generation: desired.pod.metadata.generation,
        last_transition_time: Some(since.unwrap_or_else(|| now.to_api())),
        last_probe_time: None,
    }
}

fn sandbox(desired: &Desired, seen: &Seen) -> Verdict {
    match desired.spec().map(|spec| sandbox_need(spec, seen)) {
        Some(SandboxNeed::Fresh { why, .. }) => Verdict::not("PodSandboxNotReady", Some(why.to_owned())),
        _ => Verdict::holds(),
    }
}

/// Container names as Go prints a list: `[a b]`.
fn names<'a>(list: impl Iterator<Item = &'a ContainerStatus>) -> Option<String> {
    let names: Vec<&str> = list.map(|status| status.name.as_str()).collect();
    (!names.is_empty()).then(|| format!("[{}]", names.join(" ")))
}

fn initialized(
    phase: &str,
    init: &[ContainerStatus],
    sidecars: &[&ContainerStatus],
    main: &[ContainerStatus],
) -> Verdict {
    if phase == "Succeeded" {
        return Verdict { holds: true, reason: Some("PodCompleted"), message: None };
    }
    let started = |status: &ContainerStatus| {
        let ran = |state: Option<&k8s_openapi::api::core::v1::ContainerState>| {
            state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
        };
        ran(status.state.as_ref()) || ran(status.last_state.as_ref())
    };
    if main.iter().any(started) {
        return Verdict::holds();
    }
    let done = |status: &ContainerStatus| {
        let sidecar = sidecars.iter().any(|sidecar| sidecar.name == status.name);
        if sidecar { status.started == Some(true) } else { status.ready }
    };
    match names(init.iter().filter(|status| !done(status))) {
        Some(list) => {
            Verdict::not("ContainersNotInitialized", Some(format!("containers with incomplete status: {list}")))
        }
        None => Verdict::holds(),
    }
}

fn containers_ready(phase: &str, serving: &[&ContainerStatus]) -> Verdict {
    match phase {
        "Succeeded" => return Verdict::not("PodCompleted", None),
        "Failed" => return Verdict::not("PodFailed", None),
        _ => {}
    }
    match names(serving.iter().copied().filter(|status| !status.ready)) {
        Some(list) => Verdict::not("ContainersNotReady", Some(format!("containers with unready status: {list}"))),
        None => Verdict::holds(),
    }
}

fn ready(desired: &Desired, others: &[PodCondition], phase: &str, serving: &[&ContainerStatus]) -> Verdict {
    let containers = containers_ready(phase, serving);
    if !containers.holds {
        return containers;
    }
    let mut missing = Vec::new();
    for gate in desired.spec().and_then(|spec| spec.readiness_gates.as_ref()).into_iter().flatten() {
        let kind = &gate.condition_type;
        match others.iter().find(|condition| condition.type_ == *kind) {
            None => missing.push(format!("corresponding condition of pod readiness gate {kind:?} does not exist.")),
            Some(condition) if condition.status != "True" => missing
                .push(format!("the status of pod readiness gate {kind:?} is not \"True\", but {}", condition.status)),
            Some(_) => {}
        }
    }
    if missing.is_empty() { Verdict::holds() } else { Verdict::not("ReadinessGatesNotReady", Some(missing.join(", "))) }
}
