//! A pod whose probes, hooks and sidecar are driven from outside, and pods of other runtimes: what the kubelet would make
//! of them, Berth does.

mod classes;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Stage;
use crate::kube::{self, Kube};
use crate::node::{Node, Shape};
use crate::{registry, wait};

const NODE: &str = "node-1";
const REGISTRY: &str = "127.0.0.1:5000";
const POD: &str = "probed";

/// Files that the pod's probes look at and its hooks write.
struct Levers(PathBuf);

impl Levers {
    fn pull(&self, name: &str) -> Result<()> {
        fs::write(self.0.join(name), "").with_context(|| name.to_owned())
    }

    fn push_back(&self, name: &str) -> Result<()> {
        fs::remove_file(self.0.join(name)).with_context(|| name.to_owned())
    }

    fn is_pulled(&self, name: &str) -> bool {
        self.0.join(name).exists()
    }
}

/// Plays the scenario; call it in a house.
///
/// # Errors
/// What was not as it should be.
pub fn play() -> Result<()> {
    let stage = Stage::set("probes", REGISTRY)?;
    let kube = stage.kube();
    let folder = stage.dir().join("levers");
    fs::create_dir(&folder)?;
    let mut node = stage.node(NODE, Shape::One)?;
    let story = tell(&stage, &kube, &mut node, &Levers(folder))
        .and_then(|()| classes::tell(&stage, &kube, NODE, &stage.registry().name(registry::BUSYBOX)));
    if story.is_err() {
        eprintln!("{}", node.end_of_logs());
    }
    story?;
    node.stop()?;
    stage.clear()
}

fn tell(stage: &Stage, kube: &Kube, node: &mut Node, levers: &Levers) -> Result<()> {
    kube.apply(&manifest(&stage.registry().name(registry::BUSYBOX), &levers.0))?;
    kube.await_pod(POD, "runs and has not started", |pod| {
        let main = kube::container(pod);
        (main["state"]["running"].is_object() && main["started"] == false && !kube::ready(pod)).then_some(())
    })?;
    ensure!(levers.is_pulled("hooked"), "it runs before its postStart hook has");
    let side = kube.get("pod", POD)?.context("the pod is gone")?["status"]["initContainerStatuses"][0].clone();
    ensure!(side["started"] == true && side["ready"] == true, "the sidecar is {side}");
    stage.say("the sidecar started first, the postStart hook ran, and nothing is Ready before its probes");

    levers.pull("started")?;
    kube.await_pod(POD, "has started", |pod| (kube::container(pod)["started"] == true).then_some(()))?;
    levers.pull("ready")?;
    let before = kube.await_ready(POD)?;
    stage.say("startup by a command, then readiness by HTTP on a named port");

    killing_the_agent_flips_nothing(kube, node, &before)?;
    stage.say("a killed and restarted agent left the pod Ready, and goes on asking");

    levers.push_back("ready")?;
    kube.await_pod(POD, "is no longer Ready", |pod| (!kube::ready(pod)).then_some(()))?;
    levers.pull("ready")?;
    kube.await_ready(POD)?;

    levers.pull("dead")?;
    kube.await_pod(POD, "was restarted", |pod| (restarts(pod) >= 1).then_some(()))?;
    // The new instance has put the lever back.
    let after = kube.await_ready(POD)?;
    ensure!(restarts(&after) == 1, "{} restarts", restarts(&after));
    for (reason, message) in [
        ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 404"),
        ("Unhealthy", "Liveness probe failed: "),
        ("Killing", "Container main failed liveness probe, will be restarted"),
    ] {
        await_event(kube, reason, message)?;
    }
    stage.say("a failed liveness probe cost one restart, in the kubelet's words");

    kube.delete(&[&format!("pod/{POD}")])?;
    let last = fs::read_to_string(levers.0.join("order"))?;
    ensure!(last == "main hook\nmain\nside\n", "they ended in the order {last:?}");
    stage.say("the preStop hook ran, and the sidecar ended last");
    Ok(())
}

fn restarts(pod: &Value) -> u64 {
    kube::container(pod)["restartCount"].as_u64().unwrap_or(0)
}

fn killing_the_agent_flips_nothing(kube: &Kube, node: &mut Node, before: &Value) -> Result<()> {
    // Times in statuses are whole seconds: a flip must fall into another one.
    std::thread::sleep(std::time::Duration::from_secs(2));
    node.kill_agent()?;
    node.start_agent()?;
    node.await_healthy()?;
    // Two periods of the probes, for whatever a confused agent would do.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let after = kube.await_ready(POD)?;
    ensure!(
        kube::turned(before) == kube::turned(&after),
        "readiness has flipped: {} became {}",
        before["status"],
        after["status"]
    );
    ensure!(restarts(&after) == restarts(before), "the restart of the agent restarted the container");
    Ok(())
}

fn await_event(kube: &Kube, reason: &str, message: &str) -> Result<()> {
    wait::until_true(&format!("the event {reason}: {message:?}"), kube::PATIENCE, || {
        let events = kube.list("events", "")?;
        let text = |event: &Value| event["message"].as_str().unwrap_or_default().to_owned();
        Ok(events.iter().any(|event| event["reason"] == reason && text(event).starts_with(message)))
    })
}

fn manifest(image: &str, levers: &Path) -> String {
    let levers = levers.display();
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {POD}}}
spec:
  terminationGracePeriodSeconds: 20
  volumes:
  - {{name: levers, hostPath: {{path: {levers}}}}}
  initContainers:
  - name: side
    image: {image}
    restartPolicy: Always
    command: [sh, -c, \"trap 'echo side >> /levers/order; exit 0' TERM; httpd -f -p 8081 & wait\"]
    startupProbe: {{tcpSocket: {{port: 8081}}, periodSeconds: 1, failureThreshold: 60}}
    volumeMounts: [{{name: levers, mountPath: /levers}}]
  containers:
  - name: main
    image: {image}
    command: [sh, -c, \"rm -f /levers/order /levers/dead; trap 'echo main >> /levers/order; exit 0' TERM; httpd -f -p 8080 -h /levers & wait\"]
    ports: [{{name: http, containerPort: 8080}}]
    startupProbe: {{exec: {{command: [sh, -c, test -e /levers/started]}}, periodSeconds: 1, failureThreshold: 300}}
    readinessProbe: {{httpGet: {{path: /ready, port: http}}, periodSeconds: 1, failureThreshold: 1}}
    livenessProbe:
      exec: {{command: [sh, -c, test ! -e /levers/dead]}}
      periodSeconds: 1
      failureThreshold: 1
      timeoutSeconds: 5
      terminationGracePeriodSeconds: 5
    lifecycle:
      postStart: {{exec: {{command: [sh, -c, \"echo > /levers/hooked\"]}}}}
      preStop: {{exec: {{command: [sh, -c, \"echo main hook >> /levers/order\"]}}}}
    volumeMounts: [{{name: levers, mountPath: /levers}}]
"
    )
}
