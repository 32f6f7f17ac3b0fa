//! Probes and hooks: workers over a scripted runtime, and real HTTP servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use berth_pods::Source;
use k8s_openapi::api::core::v1::ContainerStatus;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::common::{Node, Runtime, config, pod, until};

/// A pod whose only container has these fields too.
#[expect(clippy::needless_pass_by_value, reason = "json! values read better by value")]
fn with(fields: Value) -> Value {
    let mut container = json!({"name": "c", "image": "web:1"});
    for (name, field) in fields.as_object().expect("an object") {
        container[name] = field.clone();
    }
    json!({"containers": [container], "restartPolicy": "Always", "terminationGracePeriodSeconds": 20})
}

/// A probe that runs this command every second.
fn command(name: &str) -> Value {
    json!({"exec": {"command": [name]}, "periodSeconds": 1, "failureThreshold": 1})
}

fn container(node: &Node) -> ContainerStatus {
    node.told.last("web").container_statuses.and_then(|list| list.into_iter().next()).unwrap_or_default()
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

/// Every Ready that was published since `from`.
fn readiness(node: &Node, from: usize) -> Vec<bool> {
    let statuses = node.told.statuses.lock().expect("statuses");
    let containers = statuses.iter().skip(from).filter_map(|(_, status)| status.container_statuses.as_ref()?.first());
    containers.map(|container| container.ready).collect()
}

/// A web server that is well or not, and counts who asks.
struct Web {
    port: u16,
    well: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Web {
    async fn start(well: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let web = Self { port, well: Arc::new(AtomicBool::new(well)), asked: Arc::default() };
        let (well, asked) = (Arc::clone(&web.well), Arc::clone(&web.asked));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let code = if well.load(Ordering::SeqCst) { "200 OK" } else { "503 Busy" };
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                asked.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(format!("HTTP/1.1 {code}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await;
            }
        });
        web
    }

    fn get(&self) -> Value {
        json!({"httpGet": {"path": "/", "port": self.port, "host": "127.0.0.1", "scheme": "HTTP"}, "periodSeconds": 1, "failureThreshold": 1})
    }

    async fn await_asked(&self) {
        let before = self.asked.load(Ordering::SeqCst);
        until("asked again", || self.asked.load(Ordering::SeqCst) > before).await;
    }
}

#[tokio::test]
async fn a_pod_is_ready_while_its_server_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    let web = Web::start(false).await;
    let node = Node::start(&runtime, config(folder.path())).await;
    node.set(with(json!({"readinessProbe": web.get()})));
    web.await_asked().await;
    web.await_asked().await;
    let status = container(&node);
    assert!(is_running(&status) && status.started == Some(true) && !node.told.is_ready("web"), "{status:?}");
    web.well.store(true, Ordering::SeqCst);
    until("ready", || node.told.is_ready("web")).await;
    assert!(container(&node).ready);
    web.well.store(false, Ordering::SeqCst);
    until("unready", || !node.told.is_ready("web")).await;
    assert!(node.told.has_event("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503"));
    assert_eq!(runtime.count("stop_container"), 0, "readiness stops nothing");
}

#[tokio::test]
async fn a_failed_liveness_probe_restarts_the_container() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    let node = Node::start(&runtime, config(folder.path())).await;
    let mut probe = command("alive");
    probe["terminationGracePeriodSeconds"] = json!(7);
    node.set(with(json!({"livenessProbe": probe})));
    until("ready", || node.told.is_ready("web")).await;
    runtime.command("c2 alive", Some(1));
    until("stopped", || runtime.count("stop_container c2 7") == 1).await;
    until("restarted", || runtime.count("start_container") == 2).await;
    until("ready again", || node.told.is_ready("web") && container(&node).restart_count == 1).await;
    assert!(node.told.has_event("Unhealthy", "Liveness probe failed: alive says 1"));
    assert!(node.told.has_event("Killing", "Container c failed liveness probe, will be restarted"));
    assert_eq!(runtime.count("stop_container"), 1);
}

#[tokio::test]
async fn the_startup_probe_holds_the_others_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    runtime.command("started", Some(1));
    runtime.command("alive", Some(1));
    let node = Node::start(&runtime, config(folder.path())).await;
    let mut startup = command("started");
    startup["failureThreshold"] = json!(1000);
    node.set(with(
        json!({"startupProbe": startup, "livenessProbe": command("alive"), "readinessProbe": command("ready")}),
    ));
    until("asked twice", || runtime.count("exec_sync c2 started") >= 2).await;
    assert_eq!((runtime.count("exec_sync c2 alive"), runtime.count("exec_sync c2 ready")), (0, 0));
    let status = container(&node);
    assert!(is_running(&status) && status.started == Some(false) && !status.ready, "{status:?}");
    runtime.command("alive", Some(0));
    runtime.command("started", Some(0));
    until("ready", || node.told.is_ready("web")).await;
    assert_eq!(container(&node).started, Some(true));
    let asked = runtime.count("exec_sync c2 started");
    let alive = runtime.count("exec_sync c2 alive");
    until("alive twice more", || runtime.count("exec_sync c2 alive") >= alive + 2).await;
    assert_eq!(runtime.count("exec_sync c2 started"), asked, "asked after it had started");
}

#[tokio::test]
async fn a_restarted_agent_keeps_what_was_ready_and_goes_on_asking() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    let fields = json!({"startupProbe": command("started"), "livenessProbe": command("alive"), "readinessProbe": command("ready"),
        "lifecycle": {"postStart": {"exec": {"command": ["hook"]}}}});
    let first = Node::start(&runtime, config(folder.path())).await;
    first.set(with(fields.clone()));
    until("ready", || first.told.is_ready("web")).await;
    let known = first.told.last("web");
    first.pods.close().await;
    drop(first);
    // What says something else than before must not be asked again before the rest is settled.
    runtime.command("started", Some(1));
    let before = (runtime.count("exec_sync c2 alive"), runtime.count("exec_sync c2 started"));

    let second = Node::start(&runtime, config(folder.path())).await;
    let mut again = pod(with(fields));
    again.status = Some(known);
    second.pods.set(Source::Api, again);
    until("asked again", || runtime.count("exec_sync c2 alive") >= before.0 + 2).await;
    assert!(readiness(&second, 0).iter().all(|ready| *ready), "{:?}", readiness(&second, 0));
    assert_eq!(runtime.count("exec_sync c2 started"), before.1, "the startup probe is over");
    assert_eq!(runtime.count("exec_sync c2 hook"), 1, "so is the hook");
    runtime.command("ready", Some(1));
    until("unready", || container(&second).name == "c" && !second.told.is_ready("web")).await;
    assert_eq!(runtime.count("stop_container"), 0);
}

#[tokio::test]
async fn an_ending_pod_loses_its_readiness_and_is_not_ended_for_its_health() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    let node = Node::start(&runtime, config(folder.path())).await;
    let spec = with(json!({"livenessProbe": command("alive"), "readinessProbe": command("ready")}));
    node.set(spec.clone());
    until("ready", || node.told.is_ready("web")).await;
    runtime.stubborn();
    let mut deleted = pod(spec);
    deleted.metadata.deletion_timestamp = serde_json::from_value(json!("2030-01-01T00:00:00Z")).expect("a time");
    deleted.metadata.deletion_grace_period_seconds = Some(3600);
    node.pods.set(Source::Api, deleted);
    until("asked to stop", || runtime.count("stop_container") == 1).await;
    runtime.command("alive", Some(1));
    runtime.command("ready", Some(1));
    until("unready", || !node.told.is_ready("web")).await;
    assert!(!node.told.has_event("Killing", "Container c failed liveness probe, will be restarted"));
    runtime.exit(&runtime.running()[0], 0);
    until("deleted", || node.told.is_deleted("web")).await;
}

#[tokio::test]
async fn a_container_runs_once_its_post_start_hook_has_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    runtime.command("hook", None);
    let node = Node::start(&runtime, config(folder.path())).await;
    let spec =
        with(json!({"readinessProbe": command("ready"), "lifecycle": {"postStart": {"exec": {"command": ["hook"]}}}}));
    node.set(spec.clone());
    until("the hook", || runtime.count("exec_sync c2 hook") == 1).await;
    // The agent is restarted while the hook runs: it is sent again.
    node.pods.close().await;
    let second = Node::start(&runtime, config(folder.path())).await;
    let mut again = pod(spec);
    again.status = Some(node.told.last("web"));
    runtime.command("hook", Some(0));
    second.pods.set(Source::Api, again);
    until("ready", || second.told.is_ready("web")).await;
    assert_eq!(runtime.count("exec_sync c2 hook"), 2);
    let statuses = node.told.statuses.lock().expect("statuses");
    let early = statuses.iter().filter_map(|(_, status)| status.container_statuses.as_ref()?.first());
    assert!(early.into_iter().all(|status| !is_running(status)), "it ran before its hook had ended");
}

#[tokio::test]
async fn a_failed_post_start_hook_ends_the_container() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    runtime.command("c2 hook", Some(3));
    let node = Node::start(&runtime, config(folder.path())).await;
    node.set(with(
        json!({"lifecycle": {"postStart": {"exec": {"command": ["hook"]}}, "preStop": {"exec": {"command": ["bye"]}}}}),
    ));
    until("told", || node.told.has_event("FailedPostStartHook", "PostStartHook failed")).await;
    until("stopped", || runtime.count("stop_container c2 20") == 1).await;
    assert!(node.told.has_event("Killing", "FailedPostStartHook"));
    assert_eq!(runtime.count("exec_sync c2 bye"), 1);
    until("shown", || node.told.waiting("web").is_some_and(|(reason, _)| reason == "PostStartHookError")).await;
    let (_, message) = node.told.waiting("web").expect("waiting");
    assert!(message.contains("Exec lifecycle hook ([hook]) for Container \"c\""), "{message}");
    until("ready", || node.told.is_ready("web") && container(&node).restart_count == 1).await;
}

fn delete(node: &Node, spec: Value, grace: i64) {
    let mut deleted = pod(spec);
    deleted.metadata.deletion_timestamp = serde_json::from_value(json!("2030-01-01T00:00:00Z")).expect("a time");
    deleted.metadata.deletion_grace_period_seconds = Some(grace);
    node.pods.set(Source::Api, deleted);
}

#[tokio::test]
async fn the_pre_stop_hook_comes_before_the_stop_signal() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    let node = Node::start(&runtime, config(folder.path())).await;
    let spec = with(json!({"lifecycle": {"preStop": {"exec": {"command": ["bye"]}}}}));
    node.set(spec.clone());
    until("ready", || node.told.is_ready("web")).await;
    runtime.command("bye", Some(1));
    delete(&node, spec, 9);
    until("deleted", || node.told.is_deleted("web")).await;
    let order: Vec<String> =
        runtime.log().into_iter().filter(|entry| entry.starts_with("exec") || entry.starts_with("stop_c")).collect();
    assert_eq!(order, ["exec_sync c2 bye", "stop_container c2 9"]);
    assert!(node.told.has_event("FailedPreStopHook", "PreStopHook failed"));
}

#[tokio::test]
async fn a_pre_stop_hook_that_hangs_costs_the_grace_period_and_runs_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    runtime.command("bye", None);
    let node = Node::start(&runtime, config(folder.path())).await;
    let spec = with(json!({"lifecycle": {"preStop": {"exec": {"command": ["bye"]}}}}));
    node.set(spec.clone());
    until("ready", || node.told.is_ready("web")).await;
    delete(&node, spec.clone(), 3600);
    until("the hook", || runtime.count("exec_sync c2 bye") == 1).await;
    // A shorter grace period waits for the same hook, and no longer than that.
    delete(&node, spec, 2);
    until("deleted", || node.told.is_deleted("web")).await;
    assert_eq!(runtime.count("exec_sync c2 bye"), 1);
    assert_eq!(runtime.count("stop_container c2 2"), 1, "{:?}", runtime.log());
}

#[tokio::test]
async fn a_container_that_ends_by_itself_ends_its_hooks() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    let node = Node::start(&runtime, config(folder.path())).await;
    let spec = with(json!({"lifecycle": {"preStop": {"sleep": {"seconds": 3600}}}}));
    node.set(spec.clone());
    until("ready", || node.told.is_ready("web")).await;
    delete(&node, spec, 3600);
    until("being stopped", || node.told.has_event("Killing", "Stopping container c")).await;
    runtime.exit(&runtime.running()[0], 0);
    until("deleted", || node.told.is_deleted("web")).await;
}
