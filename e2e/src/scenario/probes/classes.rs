//! RuntimeClasses: which of the runtime's handlers runs a pod.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::await_event;
use crate::cri::STATE;
use crate::kube::Kube;
use crate::scenario::Stage;

const CLASS: &str = "sealed";
const POD: &str = "classed";
/// A pod that reaches the node when its class is gone.
const LATE: &str = "late";
const GONE: &str = "gone";

/// On a node whose runtime has a handler `runc`.
pub(super) fn tell(stage: &Stage, kube: &Kube, node: &str, image: &str) -> Result<()> {
    the_node_tells_its_handlers(kube, node)?;
    stage.say("the node tells its runtime's handlers and what they can");

    kube.apply(&class(CLASS))?;
    kube.apply(&pod(POD, CLASS, image, ""))?;
    let pod = kube.await_ready(POD)?;
    // The API server's admission takes it from the class.
    ensure!(pod["spec"]["overhead"]["memory"] == "8Mi", "the pod's overhead is {}", pod["spec"]["overhead"]);
    let made = made_by_runc()?;
    ensure!(made == 1, "runc has made {made} containers");
    kube.delete(&[&format!("pod/{POD}")])?;
    ensure!(made_by_runc()? == 0, "runc still has containers");
    stage.say("a pod's RuntimeClass chose the handler, with its overhead");

    kube.apply(&class(GONE))?;
    kube.apply(&self::pod(LATE, GONE, image, "schedulingGates: [{name: e2e.berth/wait}]"))?;
    kube.delete(&[&format!("runtimeclass/{GONE}")])?;
    kube.run(&["patch", "pod", LATE, "--type=json", "-p", r#"[{"op": "remove", "path": "/spec/schedulingGates"}]"#])?;
    let words = format!("Failed to create pod sandbox: runtimeclass.node.k8s.io \"{GONE}\" not found");
    await_event(kube, "FailedCreatePodSandBox", &words)?;
    ensure!(made_by_runc()? == 0, "it was made all the same");
    kube.apply(&class(GONE))?;
    kube.await_ready(LATE)?;
    ensure!(made_by_runc()? == 1, "another handler has made it");
    kube.delete(&[&format!("pod/{LATE}"), &format!("runtimeclass/{GONE}"), &format!("runtimeclass/{CLASS}")])?;
    stage.say("a pod whose class is gone waits in the kubelet's words, and runs once it is there");
    Ok(())
}

/// As a stock kubelet does (`status.runtimeHandlers`, `status.features`).
fn the_node_tells_its_handlers(kube: &Kube, node: &str) -> Result<()> {
    let status = kube.get("node", node)?.context("the node is gone")?["status"].clone();
    let handlers = status["runtimeHandlers"].as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = handlers.iter().map(|handler| handler["name"].as_str().unwrap_or_default()).collect();
    ensure!(names == ["", "berth", "runc"], "the node's handlers are {handlers:?}");
    let users = |name: &str| {
        let found = handlers.iter().find(|handler| handler["name"].as_str().unwrap_or_default() == name);
        found.map_or(Value::Null, |handler| handler["features"]["userNamespaces"].clone())
    };
    ensure!(users("") == users("berth") && users("berth") == true, "the built-in runtime can't: {handlers:?}");
    ensure!(users("runc").is_boolean(), "runc says nothing: {handlers:?}");
    ensure!(status["features"] == json!({"supplementalGroupsPolicy": true}), "features: {}", status["features"]);
    Ok(())
}

/// How many containers runc keeps.
fn made_by_runc() -> Result<usize> {
    let state = Path::new(STATE).join("oci/runc");
    if !state.exists() {
        return Ok(0);
    }
    Ok(fs::read_dir(state)?.count())
}

fn class(name: &str) -> String {
    format!(
        "apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {{name: {name}}}
handler: runc
overhead: {{podFixed: {{memory: 8Mi}}}}
"
    )
}

fn pod(name: &str, class: &str, image: &str, more: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  runtimeClassName: {class}
  terminationGracePeriodSeconds: 20
  {more}
  containers:
  - name: main
    image: {image}
    command: [sh, -c, \"trap 'exit 0' TERM; sleep 1000 & wait\"]
"
    )
}
