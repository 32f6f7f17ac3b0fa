//! The kubelet of Kubernetes itself on `berth cri`: a Deployment, and everything that a person does to its pods by
//! `kubectl`, whose streams go through the API server and the kubelet to the runtime.

mod node;
mod statistics;
mod streams;

use anyhow::{Context, Result};

use super::{Stage, web};
use crate::kube::{self, Kube};
use crate::{registry, wait};
use node::Node;

const NODE: &str = "node-1";
const REGISTRY: &str = "127.0.0.1:5000";
const REPLICAS: usize = 2;
/// A pod that repeats what it is told.
const ECHO: &str = "echo";
/// What a kubelet and a runtime keep for their next start: images, QoS cgroups and the pods' bridge.
const KEPT: &[&str] = &["file", "cgroup", "link", "address", "route", "sysctl"];

/// Who measures pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Statistics {
    /// The kubelet's cAdvisor, from cgroups.
    Cadvisor,
    /// The runtime, as with the kubelet's feature gate `PodAndContainerStatsFromCRI`.
    Cri,
}

/// Plays the scenario; call it in a house. The runtime measures pods where `stats_from_cri`.
///
/// # Errors
/// What was not as it should be.
pub fn play(stats_from_cri: bool) -> Result<()> {
    let statistics = if stats_from_cri { Statistics::Cri } else { Statistics::Cadvisor };
    let name = if statistics == Statistics::Cri { "stock-kubelet-cri-stats" } else { "stock-kubelet" };
    let stage = Stage::set(name, REGISTRY)?;
    let kube = stage.kube();
    let empty = stage.picture(NODE)?;
    let mut node = Node::start(&stage, NODE, statistics)?;
    let story = tell(&stage, &kube, &mut node, statistics);
    if story.is_err() {
        eprintln!("{}", kube.run(&["get", "nodes,pods,events", "-o", "wide"]).unwrap_or_default());
        eprintln!("{}", node.end_of_logs());
    }
    story?;
    node.stop()?;
    node::forget_the_kubelets_rules()?;
    empty.await_equal(&stage.folders(NODE), KEPT).context("after the kubelet's and the runtime's end")?;
    stage.say("kubelet and runtime are stopped and have left no process, mount, namespace or rule");
    stage.clear()
}

fn tell(stage: &Stage, kube: &Kube, node: &mut Node, statistics: Statistics) -> Result<()> {
    node.await_ready(kube)?;
    stage.say("the kubelet has registered its node, and it is Ready");
    kube.apply(&web::deployment(stage.registry(), REPLICAS))?;
    kube.apply(&echo(stage))?;
    wait::until_true("the web servers are Ready", kube::PATIENCE, || {
        node.check()?;
        Ok(kube.list("pods", "app=web")?.iter().filter(|pod| kube::ready(pod)).count() == REPLICAS)
    })?;
    for pod in kube.list("pods", "app=web")? {
        web::answers(&kube::name(&pod), pod["status"]["podIP"].as_str().context("no address")?)?;
    }
    kube.await_ready(ECHO)?;
    stage.say(&format!("{REPLICAS} web servers are Ready and answer"));

    streams::exec(kube, ECHO)?;
    stage.say("kubectl exec: output, input, exit code, terminal");
    streams::attach(stage, kube, ECHO)?;
    stage.say("kubectl attach: what is typed comes back");
    streams::logs(stage, kube, ECHO)?;
    stage.say("kubectl logs -f follows to the end");
    streams::port_forward(stage, kube)?;
    stage.say("kubectl port-forward reaches a server");
    streams::copy(stage, kube)?;
    stage.say("kubectl cp carries files both ways");
    statistics::are_served(kube, NODE, statistics)?;
    stage.say("stats/summary and metrics/cadvisor know the pods");

    kube.delete(&["deployment/web", &format!("pod/{ECHO}")])?;
    wait::until_true("the pods are gone", kube::PATIENCE, || Ok(kube.list("pods", "")?.is_empty()))?;
    stage.say("kubectl delete has removed everything");
    Ok(())
}

/// A pod that repeats each line of its input, and ends after `bye`.
fn echo(stage: &Stage) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {ECHO}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: {}
    stdin: true
    command: [sh, -c, \"while read line; do echo heard $line; [ \\\"$line\\\" = bye ] && exit 0; done; sleep 1000\"]
",
        stage.registry().name(registry::BUSYBOX)
    )
}
