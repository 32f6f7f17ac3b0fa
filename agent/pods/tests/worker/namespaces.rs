//! Namespaces that a pod's containers share, and users of its own.

use std::fs;

use berth_cri_proto::v1 as cri;
use berth_pods::Source;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::common::{Node, Runtime, config, until};

#[expect(clippy::needless_pass_by_value, reason = "json! values read better by value")]
fn named(name: &str, spec: serde_json::Value) -> Pod {
    let metadata = json!({"name": name, "namespace": "n", "uid": name, "generation": 1});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a pod")
}

fn own_users() -> serde_json::Value {
    json!({"hostUsers": false, "containers": [{"name": "c", "image": "web:1"}]})
}

fn start(asked: &cri::NamespaceOption) -> u32 {
    let users = asked.userns_options.as_ref().expect("users of its own");
    assert_eq!((users.mode(), users.uids.len(), &users.uids), (cri::NamespaceMode::Pod, 1, &users.gids));
    assert_eq!((users.uids[0].container_id, users.uids[0].length), (0, 65_536));
    users.uids[0].host_id
}

#[tokio::test]
async fn a_pod_may_share_its_processes() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    let node = Node::start(&runtime, config(folder.path())).await;
    node.set(json!({"shareProcessNamespace": true, "containers": [{"name": "c", "image": "web:1"}]}));
    until("ready", || node.told.is_ready("web")).await;
    let asked = runtime.namespaces();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|one| one.pid() == cri::NamespaceMode::Pod && one.userns_options.is_none()), "{asked:?}");
}

#[tokio::test]
async fn each_pod_has_ids_of_its_own_until_nothing_of_it_is_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let record = |pod: &str| folder.path().join("root/pods").join(pod).join("userns");
    let runtime = Runtime::new();
    runtime.has_user_namespaces();
    let node = Node::start(&runtime, config(folder.path())).await;
    node.pods.set(Source::Api, named("one", own_users()));
    until("ready", || node.told.is_ready("one")).await;
    node.pods.set(Source::Api, named("two", own_users()));
    until("ready", || node.told.is_ready("two")).await;
    let asked: Vec<u32> = runtime.namespaces().iter().map(start).collect();
    assert_eq!(asked, [65_536, 65_536, 131_072, 131_072], "a sandbox and its container have the same");
    let mounts = runtime.mounts();
    assert!(
        mounts.len() > 1 && mounts.iter().all(|mount| mount.uid_mappings.len() == 1 && mount.gid_mappings.len() == 1)
    );
    let written = fs::read_to_string(record("two")).expect("a record");
    assert!(written.contains("131072"), "{written}");

    // Another agent knows what is whose; what the first pod had is free only when all of it is gone.
    node.pods.close().await;
    let node = Node::start(&runtime, config(folder.path())).await;
    for name in ["one", "two"] {
        node.pods.set(Source::Api, named(name, own_users()));
    }
    node.pods.set(Source::Api, named("three", own_users()));
    until("ready", || node.told.is_ready("three")).await;
    assert_eq!(runtime.namespaces().last().map(start), Some(196_608));
    node.pods.remove(Source::Api, "one");
    until("gone", || {
        !record("one").exists() && !node.pods.list().iter().any(|view| view.pod.metadata.name.as_deref() == Some("one"))
    })
    .await;
    node.pods.set(Source::Api, named("four", own_users()));
    until("ready", || node.told.is_ready("four")).await;
    assert_eq!(runtime.namespaces().last().map(start), Some(65_536));

    // Nobody gets ids while somebody's are unknown.
    fs::write(record("two"), "{").expect("written");
    node.pods.set(Source::Api, named("five", own_users()));
    until("told", || node.told.has_event_about("FailedCreatePodSandBox", "two/userns")).await;
    assert!(!record("five").exists());
}

/// Without a cluster there are no classes; by the default handler such a pod must not run.
#[tokio::test]
async fn a_pod_of_an_unknown_class_waits() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    let node = Node::start(&runtime, config(folder.path())).await;
    node.set(json!({"runtimeClassName": "sealed", "containers": [{"name": "c", "image": "web:1"}]}));
    until("told", || node.told.has_event_about("FailedCreatePodSandBox", "lookup RuntimeClass sealed")).await;
    assert_eq!(runtime.count("run_pod_sandbox"), 0);
}

#[tokio::test]
async fn a_runtime_without_user_namespaces_is_not_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new();
    let node = Node::start(&runtime, config(folder.path())).await;
    node.set(own_users());
    until("told", || node.told.has_event_about("FailedCreatePodSandBox", "hostUsers")).await;
    assert_eq!(runtime.count("run_pod_sandbox"), 0);
    assert!(!folder.path().join("root/pods/u1/userns").exists());
}
