use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};
use serde_json::{Value, json};

use super::*;
use crate::plan::{Rejection, Target};
use crate::{SeenContainer, SeenSandbox, State};

const NOW: Moment = Moment(1_000_000 * 1_000_000_000);

#[expect(clippy::needless_pass_by_value, reason = "json! values read better by value")]
fn desired(spec: Value) -> Desired {
    let metadata = json!({"name": "web", "namespace": "n", "uid": "u1", "generation": 4});
    let pod: Pod = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a pod");
    let refused = pod.spec.as_ref().and_then(crate::fields::refused);
    Desired {
        pod: Arc::new(pod),
        gone: false,
        refused,
        rejected: None,
        host_ips: vec!["192.0.2.1".into(), "2001:db8::1".into()],
        runtime: "berth".into(),
    }
}

fn one(policy: &str) -> Desired {
    desired(json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "a:1"}]}))
}

fn with_init(policy: &str) -> Desired {
    desired(json!({"restartPolicy": policy, "initContainers": [{"name": "i", "image": "i:1"}],
        "containers": [{"name": "a", "image": "a:1"}]}))
}

fn deleted(desired: &Desired) -> Desired {
    let mut pod = (*desired.pod).clone();
    pod.metadata.deletion_timestamp = Some(NOW.to_api());
    Desired { pod: Arc::new(pod), ..desired.clone() }
}

fn container(name: &str, attempt: u32, state: State) -> SeenContainer {
    SeenContainer {
        id: format!("{name}{attempt}"),
        name: name.into(),
        sandbox: "s0".into(),
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

fn exited(code: i32, reason: &str) -> State {
    State::Exited {
        started: NOW.plus_seconds(-9),
        finished: NOW.plus_seconds(-1),
        code,
        reason: reason.into(),
        message: String::new(),
    }
}

fn seen(containers: Vec<SeenContainer>) -> Seen {
    let sandbox = SeenSandbox {
        id: "s0".into(),
        ready: true,
        created: NOW,
        ips: vec!["10.0.0.7".into(), "fd00::7".into()],
        ..SeenSandbox::default()
    };
    Seen { sandboxes: vec![sandbox], containers, ..Seen::default() }
}

/// `waiting REASON`, `running` or `terminated REASON CODE`.
fn short(state: Option<&k8s_openapi::api::core::v1::ContainerState>) -> String {
    let Some(state) = state else { return "-".into() };
    if let Some(waiting) = &state.waiting {
        return format!("waiting {}", waiting.reason.as_deref().unwrap_or_default());
    }
    if let Some(ended) = &state.terminated {
        return format!("terminated {} {}", ended.reason.as_deref().unwrap_or_default(), ended.exit_code);
    }
    "running".into()
}

fn first(list: &Option<Vec<ContainerStatus>>) -> &ContainerStatus {
    &list.as_ref().expect("statuses")[0]
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> &'a PodCondition {
    status.conditions.as_ref().expect("conditions").iter().find(|c| c.type_ == kind).expect("the condition")
}

fn holds(status: &PodStatus, kind: &str) -> bool {
    condition(status, kind).status == "True"
}

#[test]
fn phases_and_states() {
    // policy, containers, phase, state, last state, restarts, ready
    type Row<'a> = (&'a str, Vec<SeenContainer>, &'a str, &'a str, &'a str, i32, bool);
    let rows: Vec<Row<'_>> = vec![
        ("Always", vec![], "Pending", "waiting ContainerCreating", "-", 0, false),
        ("Always", vec![container("a", 0, State::Created)], "Pending", "waiting ContainerCreating", "-", 0, false),
        ("Always", vec![container("a", 0, running())], "Running", "running", "-", 0, true),
        ("Always", vec![container("a", 0, exited(1, ""))], "Running", "terminated Error 1", "-", 0, false),
        ("Always", vec![container("a", 0, exited(0, ""))], "Running", "terminated Completed 0", "-", 0, false),
        (
            "Always",
            vec![container("a", 0, exited(137, "OOMKilled"))],
            "Running",
            "terminated OOMKilled 137",
            "-",
            0,
            false,
        ),
        ("OnFailure", vec![container("a", 0, exited(0, ""))], "Succeeded", "terminated Completed 0", "-", 0, false),
        ("OnFailure", vec![container("a", 0, exited(1, ""))], "Running", "terminated Error 1", "-", 0, false),
        ("Never", vec![container("a", 0, exited(0, ""))], "Succeeded", "terminated Completed 0", "-", 0, false),
        ("Never", vec![container("a", 0, exited(2, ""))], "Failed", "terminated Error 2", "-", 0, false),
        (
            "Always",
            vec![container("a", 1, running()), container("a", 0, exited(3, ""))],
            "Running",
            "running",
            "terminated Error 3",
            1,
            true,
        ),
        (
            "Always",
            vec![container("a", 1, State::Created), container("a", 0, exited(3, ""))],
            "Running",
            "waiting ContainerCreating",
            "terminated Error 3",
            1,
            false,
        ),
    ];
    for (policy, containers, phase, state, last, restarts, ready) in rows {
        let status = status(&one(policy), &seen(containers.clone()), NOW);
        let container = first(&status.container_statuses);
        let found = (
            status.phase.as_deref().unwrap_or_default(),
            short(container.state.as_ref()),
            short(container.last_state.as_ref()),
            container.restart_count,
            container.ready,
        );
        assert_eq!(found, (phase, state.to_owned(), last.to_owned(), restarts, ready), "{policy} {containers:?}");
        assert_eq!(container.started, Some(ready));
        assert_eq!(holds(&status, "Ready"), ready);
    }
}

#[test]
fn a_running_pod_in_full() {
    let status = status(&one("Always"), &seen(vec![container("a", 0, running())]), NOW);
    assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.7"));
    assert_eq!(status.pod_ips.as_ref().map(Vec::len), Some(2));
    assert_eq!(status.host_ip.as_deref(), Some("192.0.2.1"));
    assert_eq!(status.host_ips.as_ref().map(Vec::len), Some(2));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    assert_eq!(status.start_time, Some(NOW.to_api()));
    assert_eq!(status.observed_generation, Some(4));
    let container = first(&status.container_statuses);
    assert_eq!(container.container_id.as_deref(), Some("berth://a0"));
    assert_eq!((container.image.as_str(), container.image_id.as_str()), ("a:1", "sha256:0"));
    for kind in ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"] {
        assert!(holds(&status, kind), "{kind}");
        assert_eq!(condition(&status, kind).observed_generation, Some(4));
    }
}

#[test]
fn crash_back_off_has_the_kubelets_words_and_ends() {
    let mut ended = container("a", 5, exited(1, ""));
    ended.backoff = 80;
    let known = seen(vec![ended]);
    let waiting = status(&one("Always"), &known, NOW);
    let container = first(&waiting.container_statuses);
    assert_eq!(short(container.state.as_ref()), "waiting CrashLoopBackOff");
    assert_eq!(short(container.last_state.as_ref()), "terminated Error 1");
    assert_eq!(container.restart_count, 5);
    let message = container.state.as_ref().and_then(|s| s.waiting.as_ref()).and_then(|w| w.message.as_deref());
    assert_eq!(message, Some("back-off 1m20s restarting failed container=a pod=web_n(u1)"));
    assert_eq!(waiting.phase.as_deref(), Some("Running"));
    let over = status(&one("Always"), &known, NOW.plus_seconds(80));
    assert_eq!(short(first(&over.container_statuses).state.as_ref()), "terminated Error 1");
}

#[test]
fn failures_before_the_first_start() {
    let image = || Target::Image("a".into());
    let rows: Vec<(Target, &'static str, bool, i64, &str, &str)> = vec![
        (image(), "ErrImagePull", false, 1, "ErrImagePull", "words"),
        (image(), "ErrImagePull", false, 3, "ImagePullBackOff", "Back-off pulling image \"a:1\": ErrImagePull: words"),
        (image(), "ErrImageNeverPull", false, 3, "ErrImageNeverPull", "words"),
        (Target::Container("a".into()), "CreateContainerConfigError", false, 3, "CreateContainerConfigError", "words"),
        (Target::Container("a".into()), "RunContainerError", false, 3, "RunContainerError", "words"),
        (Target::Volumes, "FailedMount", false, 3, "ContainerCreating", "words"),
        (Target::Volumes, "CreateContainerConfigError", true, 3, "CreateContainerConfigError", "words"),
        (Target::Sandbox, "FailedCreatePodSandBox", false, 3, "ContainerCreating", "words"),
    ];
    for (target, reason, permanent, after, shown, message) in rows {
        let mut known = Seen::default();
        known.memory.failed(target.clone(), reason, "words".into(), permanent, NOW);
        let status = status(&one("Always"), &known, NOW.plus_seconds(after));
        let waiting = first(&status.container_statuses).state.clone().and_then(|state| state.waiting).expect("waiting");
        assert_eq!((waiting.reason.as_deref(), waiting.message.as_deref()), (Some(shown), Some(message)), "{target:?}");
        assert_eq!(status.phase.as_deref(), Some("Pending"));
    }
}

#[test]
fn init_containers() {
    // policy, containers, init state, main state, phase, Initialized
    type Row<'a> = (&'a str, Vec<SeenContainer>, &'a str, &'a str, &'a str, bool);
    let rows: Vec<Row<'_>> = vec![
        ("Always", vec![], "waiting PodInitializing", "waiting PodInitializing", "Pending", false),
        ("Always", vec![container("i", 0, running())], "running", "waiting PodInitializing", "Pending", false),
        (
            "Always",
            vec![container("i", 0, exited(0, ""))],
            "terminated Completed 0",
            "waiting PodInitializing",
            "Pending",
            true,
        ),
        (
            "Always",
            vec![container("i", 0, exited(1, ""))],
            "terminated Error 1",
            "waiting PodInitializing",
            "Pending",
            false,
        ),
        (
            "Never",
            vec![container("i", 0, exited(1, ""))],
            "terminated Error 1",
            "waiting PodInitializing",
            "Failed",
            false,
        ),
        (
            "Always",
            vec![container("a", 0, running()), container("i", 0, exited(0, ""))],
            "terminated Completed 0",
            "running",
            "Running",
            true,
        ),
        // The init container was removed since.
        ("Always", vec![container("a", 0, running())], "terminated Completed 0", "running", "Running", true),
    ];
    for (policy, containers, init, main, phase, initialized) in rows {
        let status = status(&with_init(policy), &seen(containers.clone()), NOW);
        assert_eq!(short(first(&status.init_container_statuses).state.as_ref()), init, "{containers:?}");
        assert_eq!(short(first(&status.container_statuses).state.as_ref()), main, "{containers:?}");
        assert_eq!(status.phase.as_deref(), Some(phase), "{containers:?}");
        assert_eq!(holds(&status, "Initialized"), initialized, "{containers:?}");
    }
    let status = status(&with_init("Always"), &seen(vec![]), NOW);
    let message = condition(&status, "Initialized").message.as_deref();
    assert_eq!(message, Some("containers with incomplete status: [i]"));
}

#[test]
fn times_of_conditions_are_kept_until_they_turn() {
    let mut known = seen(vec![container("a", 0, running())]);
    known.published = status(&one("Always"), &known, NOW);
    let later = NOW.plus_seconds(60);
    let same = status(&one("Always"), &known, later);
    assert_eq!(same, known.published, "a status without news must not change");
    known.containers = vec![container("a", 0, exited(1, ""))];
    let turned = status(&one("Always"), &known, later);
    assert_eq!(condition(&turned, "Ready").last_transition_time, Some(later.to_api()));
    assert_eq!(condition(&turned, "PodScheduled").last_transition_time, Some(NOW.to_api()));
    assert_eq!(turned.start_time, Some(NOW.to_api()));
}

#[test]
fn conditions_of_others_are_left_and_gates_count() {
    let gated =
        json!({"readinessGates": [{"conditionType": "example.com/lb"}], "containers": [{"name": "a", "image": "a:1"}]});
    let with = |condition: Option<&str>| {
        let mut desired = desired(gated.clone());
        let conditions: Vec<Value> =
            condition.iter().map(|status| json!({"type": "example.com/lb", "status": status})).collect();
        let mut pod = (*desired.pod).clone();
        pod.status = Some(serde_json::from_value(json!({ "conditions": conditions })).expect("a status"));
        desired.pod = Arc::new(pod);
        status(&desired, &seen(vec![container("a", 0, running())]), NOW)
    };
    let missing = with(None);
    assert!(holds(&missing, "ContainersReady") && !holds(&missing, "Ready"));
    assert!(condition(&missing, "Ready").message.as_deref().is_some_and(|text| text.contains("does not exist")));
    assert!(!holds(&with(Some("False")), "Ready"));
    let ready = with(Some("True"));
    assert!(holds(&ready, "Ready") && holds(&ready, "example.com/lb"));
}

#[test]
fn the_end_of_a_pod() {
    let rows: Vec<(Vec<SeenContainer>, &str, &str)> = vec![
        (vec![container("a", 0, running())], "Running", "running"),
        (vec![container("a", 0, exited(0, ""))], "Succeeded", "terminated Completed 0"),
        (vec![container("a", 0, exited(143, ""))], "Failed", "terminated Error 143"),
        (vec![], "Failed", "terminated ContainerStatusUnknown 137"),
    ];
    for (containers, phase, state) in rows {
        let status = status(&deleted(&one("Always")), &seen(containers.clone()), NOW);
        assert_eq!(status.phase.as_deref(), Some(phase), "{containers:?}");
        assert_eq!(short(first(&status.container_statuses).state.as_ref()), state, "{containers:?}");
    }
    // A terminal phase never turns back, and keeps its address.
    let mut known = seen(vec![container("a", 0, exited(0, ""))]);
    known.published = status(&one("Never"), &known, NOW);
    known.sandboxes.clear();
    known.containers.clear();
    let after = status(&one("Never"), &known, NOW);
    assert_eq!((after.phase.as_deref(), after.pod_ip.as_deref()), (Some("Succeeded"), Some("10.0.0.7")));
    assert_eq!(short(first(&after.container_statuses).state.as_ref()), "terminated Completed 0");
}

#[test]
fn reasons_of_failure_stay() {
    let mut rejected = one("Always");
    rejected.rejected = Some(Rejection { reason: "SysctlForbidden".into(), message: "no".into() });
    let mut known = Seen { published: status(&rejected, &Seen::default(), NOW), ..Seen::default() };
    rejected.rejected = None;
    let later = status(&rejected, &known, NOW);
    assert_eq!((later.phase.as_deref(), later.reason.as_deref()), (Some("Failed"), Some("SysctlForbidden")));

    let late = desired(json!({"activeDeadlineSeconds": 5, "containers": [{"name": "a", "image": "a:1"}]}));
    known = seen(vec![container("a", 0, running())]);
    known.published.start_time = Some(NOW.plus_seconds(-10).to_api());
    let status = status(&late, &known, NOW);
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("DeadlineExceeded")));
    assert!(!holds(&status, "Ready"));
}

#[test]
fn a_refused_field_is_named() {
    let pod = desired(
        json!({"containers": [{"name": "a", "image": "a:1", "volumeDevices": [{"name": "v", "devicePath": "/v"}]}]}),
    );
    let status = status(&pod, &Seen::default(), NOW);
    let waiting = first(&status.container_statuses).state.clone().and_then(|state| state.waiting).expect("waiting");
    assert_eq!(waiting.reason.as_deref(), Some("CreateContainerConfigError"));
    assert_eq!(
        waiting.message.as_deref(),
        Some("spec.containers[0].volumeDevices: Berth does not implement this field")
    );
    assert_eq!(status.phase.as_deref(), Some("Pending"));
}

#[test]
fn a_container_that_vanished_is_said_to_be_lost() {
    let mut known = seen(vec![container("a", 0, running())]);
    known.published = status(&one("Always"), &known, NOW);
    known.containers.clear();
    let status = status(&one("Always"), &known, NOW);
    let container = first(&status.container_statuses);
    assert_eq!(short(container.last_state.as_ref()), "terminated ContainerStatusUnknown 137");
    assert_eq!((container.restart_count, status.phase.as_deref()), (1, Some("Running")));
}

#[test]
fn long_messages_are_cut() {
    let state =
        State::Exited { started: NOW, finished: NOW, code: 1, reason: String::new(), message: "ä".repeat(10_000) };
    let status = status(&one("Never"), &seen(vec![container("a", 0, state)]), NOW);
    let message = first(&status.container_statuses).state.clone().and_then(|s| s.terminated).and_then(|t| t.message);
    assert_eq!(message.map(|message| message.len()), Some(12 << 10));
}

#[test]
fn host_network_pods_have_the_nodes_addresses() {
    let pod = desired(json!({"hostNetwork": true, "containers": [{"name": "a", "image": "a:1"}]}));
    let mut known = seen(vec![container("a", 0, running())]);
    known.sandboxes[0].host_network = true;
    known.sandboxes[0].ips.clear();
    let status = status(&pod, &known, NOW);
    assert_eq!(status.pod_ip.as_deref(), Some("192.0.2.1"));
    assert!(holds(&status, "PodReadyToStartContainers"));
}

#[test]
fn probes_decide_what_is_started_and_ready() {
    let pod = desired(json!({"containers": [{"name": "a", "image": "a:1", "startupProbe": {}, "readinessProbe": {}}]}));
    let mut known = seen(vec![container("a", 0, running())]);
    // The kubelet's rule: nothing is ready before its probes have run.
    for (health, started, ready) in
        [(None, false, false), (Some((true, false)), true, false), (Some((true, true)), true, true)]
    {
        if let Some((started, ready)) = health {
            known.health.insert("a0".into(), crate::probe::Health { started, ready, failed: None });
        }
        let status = status(&pod, &known, NOW);
        let container = first(&status.container_statuses);
        assert_eq!((container.started, container.ready), (Some(started), ready));
        assert_eq!((holds(&status, "Ready"), holds(&status, "ContainersReady")), (ready, ready));
        assert_eq!(status.phase.as_deref(), Some("Running"));
    }
}

#[test]
fn a_container_shows_as_running_once_its_hook_is_through() {
    let hook = json!({"postStart": {"sleep": {"seconds": 1}}});
    let pod = desired(json!({"containers": [{"name": "a", "image": "a:1", "lifecycle": hook}]}));
    let mut known = seen(vec![container("a", 0, running())]);
    assert_eq!(short(first(&status(&pod, &known, NOW).container_statuses).state.as_ref()), "waiting ContainerCreating");
    known.memory.hooks.insert("a0".into(), false);
    assert_eq!(
        short(first(&status(&pod, &known, NOW).container_statuses).state.as_ref()),
        "waiting PostStartHookError"
    );
    known.memory.hooks.insert("a0".into(), true);
    assert_eq!(short(first(&status(&pod, &known, NOW).container_statuses).state.as_ref()), "running");
}

#[test]
fn sidecars_count_for_readiness_and_for_the_start() {
    let pod = desired(
        json!({"initContainers": [{"name": "s", "image": "s:1", "restartPolicy": "Always", "readinessProbe": {}}],
        "containers": [{"name": "a", "image": "a:1"}]}),
    );
    let mut known = seen(vec![container("s", 0, running())]);
    let early = status(&pod, &known, NOW);
    assert_eq!((early.phase.as_deref(), holds(&early, "Initialized")), (Some("Pending"), true));
    known.containers.insert(0, container("a", 0, running()));
    let unready = status(&pod, &known, NOW);
    assert_eq!((unready.phase.as_deref(), holds(&unready, "Ready")), (Some("Running"), false));
    assert_eq!(condition(&unready, "Ready").message.as_deref(), Some("containers with unready status: [s]"));
    known.health.insert("s0".into(), crate::probe::Health { started: true, ready: true, failed: None });
    let ready = status(&pod, &known, NOW);
    assert!(holds(&ready, "Ready") && first(&ready.init_container_statuses).ready);
}
