//! Pod workers over a scripted runtime.

mod common;
#[path = "worker/namespaces.rs"]
mod namespaces;
#[path = "worker/probes.rs"]
mod probes;

use std::path::Path;

use berth_pods::{LogError, Source};
use common::{Node, Runtime, config, pod, until};
use serde_json::json;
use tonic::Status;

fn simple() -> serde_json::Value {
    json!({"containers": [{"name": "c", "image": "web:1", "terminationMessagePath": "/dev/termination-log"}], "restartPolicy": "Always"})
}

fn files(folder: &Path) -> Vec<String> {
    let mut out = Vec::new();
    let mut queue = vec![folder.to_owned()];
    while let Some(dir) = queue.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                queue.push(path.clone());
            }
            out.push(path.strip_prefix(folder).expect("below").to_string_lossy().into_owned());
        }
    }
    out.sort();
    out
}

#[tokio::test]
async fn a_pod_lives_and_is_deleted_without_a_trace() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    let node = Node::start(&runtime, config(folder.path())).await;
    assert_eq!(node.pods.log_path("n", "web", "c", false), Err(LogError::NoPod("web".into())));
    node.set(simple());
    until("ready", || node.told.is_ready("web")).await;
    let status = node.told.last("web");
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(status.pod_ip.as_deref(), Some("10.9.0.1"));
    assert_eq!(status.host_ip.as_deref(), Some("192.0.2.1"));
    let container = &status.container_statuses.as_ref().expect("containers")[0];
    assert_eq!(container.container_id.as_deref(), Some("fake://c2"));
    assert_eq!(node.told.reasons(), ["Pulling", "Pulled", "Created", "Started"]);
    let log = node.pods.log_path("n", "web", "c", false).expect("a log");
    assert_eq!(log, folder.path().join("logs/n_web_u1/c/0.log"));
    assert!(matches!(node.pods.log_path("n", "web", "c", true), Err(LogError::NoPrevious { .. })));
    assert!(matches!(node.pods.log_path("n", "web", "x", false), Err(LogError::NoContainer { .. })));
    assert!(files(folder.path()).contains(&"root/pods/u1/etc-hosts".to_owned()));
    until("the link", || files(folder.path()).contains(&"links/web_n_c-c2.log".to_owned())).await;

    let mut deleted = pod(simple());
    deleted.metadata.deletion_timestamp = serde_json::from_value(json!("2030-01-01T00:00:00Z")).expect("a time");
    deleted.metadata.deletion_grace_period_seconds = Some(7);
    node.pods.set(Source::Api, deleted);
    until("deleted", || node.told.is_deleted("web")).await;
    assert!(runtime.is_empty());
    let log = runtime.log();
    let expected = [
        "run_pod_sandbox web 0",
        "create_container c 0",
        "start_container c2",
        "stop_container c2 7",
        "stop_pod_sandbox s1",
        "remove_pod_sandbox s1",
    ];
    assert_eq!(
        log.iter().filter(|entry| !entry.starts_with("pull")).collect::<Vec<_>>(),
        expected.iter().collect::<Vec<_>>()
    );
    assert_eq!(files(folder.path()), ["links", "logs", "root", "root/pods"]);
    until("forgotten", || node.pods.list().is_empty()).await;
}

#[tokio::test]
async fn a_restarted_agent_adopts_what_runs_and_nothing_flips() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    let first = Node::start(&runtime, config(folder.path())).await;
    first.set(simple());
    until("ready", || first.told.is_ready("web")).await;
    let known = first.told.last("web");
    first.pods.close().await;
    drop(first);
    let before = runtime.log().len();

    let second = Node::start(&runtime, config(folder.path())).await;
    let mut again = pod(simple());
    again.status = Some(known);
    second.pods.set(Source::Api, again);
    second.pods.synced(Source::Api, &["u1".to_owned()]);
    until("adopted", || second.pods.log_path("n", "web", "c", false).is_ok()).await;
    // Whatever a wrong worker would do, it does before it handles the container's exit.
    runtime.exit(&runtime.running()[0], 1);
    until("restarted", || runtime.count("create_container") == 2).await;
    let statuses = second.told.statuses.lock().expect("statuses");
    assert!(statuses.iter().all(|(_, status)| status.phase.as_deref() == Some("Running")), "{statuses:?}");
    assert_eq!(runtime.log()[before], "create_container c 1", "{:?}", runtime.log());
}

#[tokio::test]
async fn what_nobody_declares_is_removed_once_all_sources_are_known() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    let first = Node::start(&runtime, config(folder.path())).await;
    first.set(simple());
    until("ready", || first.told.is_ready("web")).await;
    first.pods.close().await;
    let second = Node::start(&runtime, config(folder.path())).await;
    tokio::task::yield_now().await;
    assert_eq!(runtime.running().len(), 1);
    second.pods.synced(Source::Api, &[]);
    until("removed", || runtime.is_empty() && files(folder.path()) == ["links", "logs", "root", "root/pods"]).await;
    assert!(!second.told.is_deleted("web"));
}

#[tokio::test]
async fn a_crash_backs_off_after_the_first_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    let node = Node::start(&runtime, config(folder.path())).await;
    node.set(simple());
    for restart in 0..2 {
        until("running", || runtime.running().len() == 1 && node.told.is_ready("web")).await;
        runtime.exit(&runtime.running()[0], 3);
        if restart == 0 {
            until("restarted", || runtime.count("start_container") == 2).await;
            until("seen", || node.told.last("web").container_statuses.is_some_and(|list| list[0].restart_count == 1))
                .await;
        }
    }
    until("back-off", || node.told.waiting("web").is_some_and(|(reason, _)| reason == "CrashLoopBackOff")).await;
    let (_, message) = node.told.waiting("web").expect("waiting");
    assert_eq!(message, "back-off 10s restarting failed container=c pod=web_n(u1)");
    assert_eq!(node.told.last("web").phase.as_deref(), Some("Running"));
    until("told", || node.told.reasons().contains(&"BackOff")).await;
    // The worker, restarted, still waits: the back-off is in the container's annotations.
    node.pods.close().await;
    let second = Node::start(&runtime, config(folder.path())).await;
    second.set(simple());
    until("back-off again", || second.told.waiting("web").is_some_and(|(reason, _)| reason == "CrashLoopBackOff"))
        .await;
    assert_eq!(runtime.count("create_container"), 2);
    assert_eq!(
        second.pods.log_path("n", "web", "c", true).expect("a log"),
        folder.path().join("logs/n_web_u1/c/0.log")
    );
}

#[tokio::test]
async fn a_lost_sandbox_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    let node = Node::start(&runtime, config(folder.path())).await;
    node.set(simple());
    until("ready", || node.told.is_ready("web")).await;
    runtime.lose_sandbox();
    until("a second sandbox", || runtime.count("run_pod_sandbox web 1") == 1).await;
    until("ready again", || {
        node.told.is_ready("web")
            && node.told.last("web").container_statuses.is_some_and(|list| list[0].restart_count == 1)
    })
    .await;
    assert!(node.told.reasons().contains(&"SandboxChanged"));
    let status = node.told.last("web");
    let ended = status.container_statuses.expect("containers")[0].last_state.clone().and_then(|state| state.terminated);
    assert_eq!(ended.map(|ended| ended.exit_code), Some(137));
}

#[tokio::test]
async fn failures_are_told_and_tried_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    runtime.fail("run_pod_sandbox", Status::unknown("no address"));
    let node = Node::start(&runtime, config(folder.path())).await;
    node.set(simple());
    until("the failure", || node.told.reasons().contains(&"FailedCreatePodSandBox")).await;
    until("ready", || node.told.is_ready("web")).await;
    assert_eq!(runtime.count("run_pod_sandbox"), 2);
}

#[tokio::test]
async fn a_pull_that_fails_shows_the_registrys_words_and_then_waits() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    runtime.fail("pull_image", Status::unknown("manifest unknown"));
    let node = Node::start(&runtime, config(folder.path())).await;
    node.set(simple());
    let waiting = |reason: &str| {
        node.told.waiting("web").is_some_and(|(found, text)| found == reason && text.contains("manifest unknown"))
    };
    until("the error", || waiting("ErrImagePull")).await;
    until("the wait", || waiting("ImagePullBackOff")).await;
    assert_eq!(runtime.count("pull_image"), 1);
    assert_eq!(node.told.last("web").phase.as_deref(), Some("Pending"));
}

#[tokio::test]
async fn a_refused_field_keeps_the_pod_pending_by_its_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    let node = Node::start(&runtime, config(folder.path())).await;
    let devices = json!([{"name": "v", "devicePath": "/dev/v"}]);
    node.set(json!({"containers": [{"name": "c", "image": "web:1", "volumeDevices": devices}]}));
    until("refused", || node.told.waiting("web").is_some()).await;
    let (reason, message) = node.told.waiting("web").expect("waiting");
    assert_eq!(reason, "CreateContainerConfigError");
    assert!(message.starts_with("spec.containers[0].volumeDevices: "), "{message}");
    assert!(runtime.log().is_empty());
    assert!(!node.told.is_ready("web"));
}

#[tokio::test]
async fn a_shorter_grace_period_overtakes_a_longer_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    let node = Node::start(&runtime, config(folder.path())).await;
    node.set(simple());
    until("ready", || node.told.is_ready("web")).await;
    runtime.stubborn();
    let delete = |grace| {
        let mut deleted = pod(simple());
        deleted.metadata.deletion_timestamp = serde_json::from_value(json!("2030-01-01T00:00:00Z")).expect("a time");
        deleted.metadata.deletion_grace_period_seconds = Some(grace);
        node.pods.set(Source::Api, deleted);
    };
    delete(3600);
    until("asked to stop", || runtime.count("stop_container") == 1).await;
    delete(1);
    until("deleted", || node.told.is_deleted("web")).await;
    assert_eq!(runtime.count("stop_container"), 2);
}

#[tokio::test]
async fn a_lost_event_is_caught_by_the_relist() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    let mut config = config(folder.path());
    config.relist = std::time::Duration::from_secs(1);
    let node = Node::start(&runtime, config).await;
    node.set(simple());
    until("ready", || node.told.is_ready("web")).await;
    runtime.exit_silently(&runtime.running()[0], 1);
    until("restarted", || runtime.count("start_container") == 2).await;
}

#[tokio::test]
async fn a_pod_that_ends_keeps_its_logs_until_it_is_deleted() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    let node = Node::start(&runtime, config(folder.path())).await;
    let mut spec = simple();
    spec["restartPolicy"] = json!("Never");
    node.set(spec);
    until("ready", || node.told.is_ready("web")).await;
    runtime.exit(&runtime.running()[0], 0);
    until("succeeded", || node.told.last("web").phase.as_deref() == Some("Succeeded")).await;
    until("the sandbox stopped", || runtime.count("stop_pod_sandbox") == 1).await;
    assert!(node.pods.log_path("n", "web", "c", false).is_ok());
    assert!(!runtime.is_empty());
    node.pods.remove(Source::Api, "u1");
    until("gone", || runtime.is_empty() && node.pods.list().is_empty()).await;
}

#[tokio::test]
async fn init_containers_run_in_order_before_the_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    let node = Node::start(&runtime, config(folder.path())).await;
    node.set(json!({"initContainers": [{"name": "i1", "image": "a:1"}, {"name": "i2", "image": "b:1"}],
                    "containers": [{"name": "c", "image": "web:1"}]}));
    for _ in 0..2 {
        until("an init container", || runtime.running().len() == 1).await;
        let started = runtime.count("start_container");
        runtime.exit(&runtime.running()[0], 0);
        until("the next", || runtime.count("start_container") == started + 1).await;
    }
    until("ready", || node.told.is_ready("web")).await;
    let created: Vec<String> = runtime.log().into_iter().filter(|entry| entry.starts_with("create")).collect();
    assert_eq!(created, ["create_container i1 0", "create_container i2 0", "create_container c 0"]);
}

#[tokio::test]
async fn stop_all_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    let node = Node::start(&runtime, config(folder.path())).await;
    node.set(simple());
    until("ready", || node.told.is_ready("web")).await;
    node.pods.stop_all().await;
    assert!(runtime.is_empty() && node.pods.list().is_empty());
    assert_eq!(files(folder.path()), ["links", "logs", "root", "root/pods"]);
}
