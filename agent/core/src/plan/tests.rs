mod model;
mod tables;

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::{Presence, SeenContainer, SeenSandbox, State};

/// A moment that leaves room before it.
const NOW: Moment = Moment(1_000_000 * 1_000_000_000);

#[expect(clippy::needless_pass_by_value, reason = "json! values read better by value")]
fn desired(spec: serde_json::Value) -> Desired {
    let metadata = json!({"name": "web", "namespace": "n", "uid": "u1", "generation": 4});
    let pod: Pod = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a pod");
    let refused = pod.spec.as_ref().and_then(crate::fields::refused);
    Desired {
        pod: Arc::new(pod),
        gone: false,
        refused,
        rejected: None,
        host_ips: vec!["192.0.2.1".into()],
        runtime: "berth".into(),
    }
}

fn delete(desired: &Desired, grace: i64) -> Desired {
    let mut pod = (*desired.pod).clone();
    pod.metadata.deletion_timestamp = Some(NOW.to_api());
    pod.metadata.deletion_grace_period_seconds = Some(grace);
    Desired { pod: Arc::new(pod), ..desired.clone() }
}

fn sandbox(attempt: u32, ready: bool) -> SeenSandbox {
    SeenSandbox {
        id: format!("s{attempt}"),
        attempt,
        ready,
        created: NOW,
        ips: vec![format!("10.0.0.{attempt}")],
        host_network: false,
    }
}

fn container(name: &str, sandbox: &str, attempt: u32, state: State) -> SeenContainer {
    SeenContainer {
        id: format!("{name}{attempt}"),
        name: name.into(),
        sandbox: sandbox.into(),
        attempt,
        created: NOW.plus_seconds(-10),
        state,
        backoff: 0,
        image: format!("{name}:1"),
        image_ref: "sha256:0".into(),
        user: None,
        log_path: String::new(),
    }
}

fn running() -> State {
    State::Running { started: NOW.plus_seconds(-9) }
}

fn exited(code: i32) -> State {
    let (started, finished) = (NOW.plus_seconds(-9), NOW.plus_seconds(-1));
    State::Exited { started, finished, code, reason: String::new(), message: String::new() }
}

/// Prepared, with these sandboxes and containers, newest first.
fn seen(sandboxes: Vec<SeenSandbox>, containers: Vec<SeenContainer>) -> Seen {
    Seen {
        sandboxes,
        containers,
        files: Presence::Present,
        cgroup: Presence::Present,
        volumes: Presence::Present,
        ..Seen::default()
    }
}

/// Steps by short names, waits left out.
fn steps(plan: &Plan) -> Vec<String> {
    let short = |step: &Step| match step {
        Step::PrepareHost => "prepare-host".to_owned(),
        Step::PrepareVolumes => "prepare-volumes".to_owned(),
        Step::CreateSandbox { attempt } => format!("sandbox {attempt}"),
        Step::PullImage { container, .. } => format!("pull {container}"),
        Step::CreateContainer { container, attempt, backoff, .. } => format!("create {container} {attempt} b{backoff}"),
        Step::StartContainer { id, .. } => format!("start {id}"),
        Step::PostStart { id, .. } => format!("post-start {id}"),
        Step::PreStop { id, .. } => format!("pre-stop {id}"),
        Step::StopContainer { id, grace, .. } => format!("stop {id} {grace}"),
        Step::StopSandbox { id } => format!("stop-sandbox {id}"),
        Step::RemoveContainer { id, .. } => format!("remove {id}"),
        Step::RemoveSandbox { id } => format!("remove-sandbox {id}"),
        Step::ClearVolumes => "clear-volumes".to_owned(),
        Step::ClearCgroup => "clear-cgroup".to_owned(),
        Step::ClearFiles => "clear-files".to_owned(),
        Step::Abandon(target) => format!("abandon {target:?}"),
        Step::ReportGone => "gone".to_owned(),
        Step::Wait { .. } => String::new(),
        Step::Refuse { path } => format!("refuse {path}"),
    };
    plan.steps.iter().map(|planned| short(&planned.step)).filter(|text| !text.is_empty()).collect()
}

fn pulled(seen: &mut Seen, name: &str) {
    let state = crate::ImageState { image: format!("{name}:1"), reference: "sha256:0".into() };
    seen.memory.images.insert(name.into(), state);
}
