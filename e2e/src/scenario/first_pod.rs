//! The first pod, end to end: a Deployment and a crashing pod on a real cluster, and back to nothing.

mod manifests;
mod peer;
mod process;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Stage, web};
use crate::kube::{self, Kube};
use crate::node::{Node, Shape};
use crate::{http, registry, wait};
use process::Process;

const NODE: &str = "node-1";
const REGISTRY: &str = "127.0.0.1:5000";
const WEB: &str = "app=web";
const CRASHER: &str = "crasher";
const REPLICAS: usize = 3;
/// What a node keeps for its agent's next start: images, the QoS cgroups, and the pods' bridge with its settings. While
/// the agent runs, these too are compared.
const KEPT: &[&str] = &["file", "cgroup", "link", "address", "route", "sysctl"];
/// Prints what a URL answers. Debian's static busybox crashes in its wget's own `-T`.
const FETCH: [&str; 8] = ["/bin/busybox", "timeout", "5", "/bin/busybox", "wget", "-q", "-O", "-"];

/// A replica as it was seen at one moment.
#[derive(Debug, PartialEq, Eq)]
struct Replica {
    pod: String,
    address: Ipv4Addr,
    container: String,
    restarts: u64,
    process: Process,
}

/// Plays the scenario on a node of one or two processes; call it in a house.
///
/// # Errors
/// What was not as it should be.
pub fn play(shape: Shape) -> Result<()> {
    let name = if shape == Shape::One { "first-pod" } else { "first-pod-two-processes" };
    let stage = Stage::set(name, REGISTRY)?;
    let kube = stage.kube();
    let empty = stage.picture(NODE)?;
    let mut node = stage.node(NODE, shape)?;
    let story = tell(&stage, &kube, &mut node);
    if story.is_err() {
        eprintln!("{}", node.end_of_logs());
    }
    story?;
    node.stop()?;
    empty.await_equal(&stage.folders(NODE), KEPT).context("after the agent's end")?;
    stage.say("the agent is stopped and has left no process, mount, namespace or rule");
    stage.clear()
}

fn tell(stage: &Stage, kube: &Kube, node: &mut Node) -> Result<()> {
    warm_up(stage, kube)?;
    let before = stage.picture(NODE)?;
    stage.say(&format!("picture taken: {before}"));

    kube.apply(&manifests::web(stage.registry(), REPLICAS))?;
    kube.apply(&manifests::crasher(stage.registry(), CRASHER))?;
    let replicas = await_replicas(kube, REPLICAS)?;
    stage.say(&format!("{REPLICAS} replicas are Ready"));
    addresses_are_the_nodes(kube, &replicas)?;
    replicas_answer_each_other(&replicas)?;
    stage.say("they have addresses from the node's pod CIDR and answer each other");

    logs_are_served(kube, &replicas)?;
    stage.say("kubectl logs shows both");
    crasher_backs_off(kube)?;
    stage.say("the crashing pod restarts with back-off");

    killing_the_agent_disturbs_nothing(stage, kube, node, &replicas)?;
    killing_a_shim_costs_one_restart(stage, kube, &replicas[0])?;
    host_port_is_served(stage, kube)?;

    kube.delete(&["deployment/web", "pod/crasher"])?;
    wait::until_true("the replicas are gone", kube::PATIENCE, || Ok(kube.list("pods", "")?.is_empty()))?;
    stage.say("kubectl delete has removed everything");
    before.await_equal(&stage.folders(NODE), &[])?;
    stage.say("nothing is left behind");
    Ok(())
}

/// Runs each image once, so that the picture before the story has the images in it.
fn warm_up(stage: &Stage, kube: &Kube) -> Result<()> {
    kube.apply(&manifests::pod(stage.registry(), "warm-web", registry::WEB, None))?;
    kube.apply(&manifests::pod(
        stage.registry(),
        "warm-shell",
        registry::BUSYBOX,
        Some("sleep 1000 & trap 'exit 0' TERM; wait"),
    ))?;
    kube.await_ready("warm-web")?;
    kube.await_ready("warm-shell")?;
    kube.delete(&["pod/warm-web", "pod/warm-shell"])?;
    stage.say("both images were pulled and run once");
    Ok(())
}

fn await_replicas(kube: &Kube, count: usize) -> Result<Vec<Replica>> {
    wait::until("the replicas are Ready", kube::PATIENCE, || {
        let pods = kube.list("pods", WEB)?;
        let ready: Vec<&Value> = pods.iter().filter(|pod| kube::ready(pod)).collect();
        if ready.len() != count || pods.len() != count {
            return Ok(None);
        }
        ready.into_iter().map(see).collect::<Result<Vec<Replica>>>().map(Some)
    })
    .with_context(|| kube.run(&["get", "pods,events", "-o", "wide"]).unwrap_or_default())
}

fn see(pod: &Value) -> Result<Replica> {
    let container = kube::container_id(pod).context("the pod has no container id")?;
    let address = pod["status"]["podIP"].as_str().context("the pod has no address")?;
    Ok(Replica {
        pod: kube::name(pod),
        address: address.parse()?,
        restarts: kube::container(pod)["restartCount"].as_u64().context("the pod has no restart count")?,
        process: Process::of_container(&container)?,
        container,
    })
}

fn addresses_are_the_nodes(kube: &Kube, replicas: &[Replica]) -> Result<()> {
    let node = kube.get("node", NODE)?.context("the node is gone")?;
    let cidr = kube::pod_cidr(&node)?;
    let (network, length) = cidr.split_once('/').context("a CIDR has a length")?;
    let mask = u32::MAX << (32 - length.parse::<u32>()?);
    let network = network.parse::<Ipv4Addr>()?.to_bits();
    for replica in replicas {
        ensure!(replica.address.to_bits() & mask == network, "{} is not in {cidr}", replica.address);
    }
    let distinct: BTreeSet<Ipv4Addr> = replicas.iter().map(|replica| replica.address).collect();
    ensure!(distinct.len() == replicas.len(), "two replicas have the same address: {replicas:?}");
    Ok(())
}

/// Every replica asks every replica (itself too) from inside its own namespaces; so does the node.
fn replicas_answer_each_other(replicas: &[Replica]) -> Result<()> {
    for to in replicas {
        for from in replicas {
            let answer = from.process.fetch(&format!("http://{}/", to.address))?;
            ensure!(answer.trim() == to.pod, "{} got {answer:?} from {}", from.pod, to.pod);
        }
        answers_to_the_node(to)?;
    }
    Ok(())
}

fn answers_to_the_node(replica: &Replica) -> Result<()> {
    web::answers(&replica.pod, replica.address)
}

fn logs_are_served(kube: &Kube, replicas: &[Replica]) -> Result<()> {
    for replica in replicas {
        await_log(kube, &replica.pod, "serving\n")?;
    }
    await_log(kube, CRASHER, "about to fail\n")
}

fn await_log(kube: &Kube, pod: &str, expected: &str) -> Result<()> {
    wait::until_true(&format!("the log of {pod} is {expected:?}"), kube::PATIENCE, || {
        let log = kube.run(&["logs", pod])?;
        if log != expected {
            bail!("it is {log:?}");
        }
        Ok(true)
    })
}

fn crasher_backs_off(kube: &Kube) -> Result<()> {
    kube.await_pod(CRASHER, "waits in CrashLoopBackOff after a restart", |pod| {
        let status = kube::container(pod);
        let backs_off = status["state"]["waiting"]["reason"] == "CrashLoopBackOff";
        let exited = status["lastState"]["terminated"]["exitCode"] == 3;
        (backs_off && exited && status["restartCount"].as_u64() >= Some(1)).then_some(())
    })?;
    wait::until_true("the back-off is told in an event", kube::PATIENCE, || {
        Ok(kube.run(&["get", "events", "-o", "jsonpath={.items[*].reason}"])?.split(' ').any(|r| r == "BackOff"))
    })
}

fn killing_the_agent_disturbs_nothing(stage: &Stage, kube: &Kube, node: &mut Node, before: &[Replica]) -> Result<()> {
    node.kill_agent()?;
    for replica in before {
        answers_to_the_node(replica).context("while the agent is dead")?;
    }
    if let Ok(()) = node.kill_cri() {
        for replica in before {
            answers_to_the_node(replica).context("while the runtime is dead too")?;
        }
        node.start_cri()?;
    }
    node.start_agent()?;
    node.await_healthy()?;
    // A pod that comes after it shows that the agent has taken up its work.
    kube.apply(&manifests::pod(stage.registry(), "after", registry::WEB, None))?;
    kube.await_ready("after")?;
    kube.delete(&["pod/after"])?;
    let after = await_replicas(kube, before.len())?;
    ensure!(after == before, "the replicas are not what they were:\nbefore {before:?}\nafter  {after:?}");
    stage.say("kill -9 of the agent disturbed no container, and the restarted agent adopted all");
    Ok(())
}

/// The pod's processes are killed, the container is reported as unknown, and the pod is made again.
fn killing_a_shim_costs_one_restart(stage: &Stage, kube: &Kube, victim: &Replica) -> Result<()> {
    let shim = victim.process.parent()?;
    ensure!(shim.name()?.starts_with("berth-shim"), "the container's parent is {}", shim.name()?);
    shim.kill()?;
    wait::until_true("the pod's processes are gone", kube::PATIENCE, || Ok(!victim.process.is_alive()))?;
    let reason = kube.await_pod(&victim.pod, "is made again", |pod| {
        let status = kube::container(pod);
        let last = &status["lastState"]["terminated"];
        let again = kube::ready(pod) && kube::container_id(pod).is_some_and(|id| id != victim.container);
        (again && last["exitCode"] == 137).then(|| last["reason"].as_str().unwrap_or_default().to_owned())
    })?;
    ensure!(reason == "ContainerStatusUnknown", "the lost container's reason is {reason:?}");
    let replicas = await_replicas(kube, REPLICAS)?;
    replicas_answer_each_other(&replicas)?;
    stage.say("kill -9 of a shim: exit 137, status unknown, and the pod is made again");
    Ok(())
}

fn host_port_is_served(stage: &Stage, kube: &Kube) -> Result<()> {
    kube.apply(&manifests::host_port(stage.registry(), "public", 18080))?;
    kube.await_ready("public")?;
    let peer = peer::Peer::attach()?;
    for (whence, answer) in [
        ("another machine", peer.fetch(&format!("http://{}:18080/", crate::controlplane::ADDRESS))?),
        ("the node's address", fetch(crate::controlplane::ADDRESS)?),
        ("the node's loopback", fetch("127.0.0.1")?),
    ] {
        ensure!(answer.trim() == "public", "by {whence} the host port answers {answer:?}");
    }
    drop(peer);
    kube.delete(&["pod/public"])?;
    stage.say("a host port answers another machine, the node's address and its loopback");
    Ok(())
}

fn fetch(address: &str) -> Result<String> {
    let answer = http::request(&format!("{address}:18080"), "GET", "/", &[], b"")?;
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}
