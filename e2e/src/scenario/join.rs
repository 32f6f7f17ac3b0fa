//! Joining a cluster that kubeadm made: by `berth join`, and by kubeadm itself with Berth as its kubelet.
//!
//! The control plane is reached over a bridge; each node is a room with a network and a root of its own. What brings
//! the pods' network and the services are the cluster's own DaemonSets: a kindnet-like one and kube-proxy.

mod crash;
mod failing;
mod kubeadm;
mod manifests;
mod node;
mod rotation;
mod workload;

use std::fs;

use anyhow::{Context, Result};

use super::Stage;
use crate::command;
use crate::kube::Kube;
use crate::leak::Picture;
use crate::room::Room;
use node::Node;

const REGISTRY: &str = "10.251.0.1:5000";
/// Joins by `berth join`.
const FIRST: (&str, &str) = ("join-1", "10.251.0.11");
/// Joins by `kubeadm join`.
const SECOND: (&str, &str) = ("join-2", "10.251.0.12");
/// Signers backdate certificates by 5 minutes, so these live for 8, of which 70 to 90 % are over after 36 s to 132 s.
const SIGNING: &str = "3m";

/// What the scenario shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Joins that can't succeed.
    Failing,
    /// A join that is killed at each of its steps.
    Crash,
    /// Two nodes' whole life.
    Nodes,
}

/// Plays the parts that are `wanted`; call it in a house.
///
/// # Errors
/// What was not as it should be.
pub fn play(wanted: impl Fn(Part) -> bool) -> Result<()> {
    let stage = Stage::set_signing("join-kubeadm", REGISTRY, Some(SIGNING))?;
    let kube = stage.kube();
    stage.plane().admit_nodes()?;
    stage.say("kubeadm's bootstrap token and configurations are in place");
    let first = build(FIRST, &stage)?;
    let second = build(SECOND, &stage)?;
    let empty = (first.picture()?, second.picture()?);
    stage.say(&format!("two rooms are built: {}", empty.0));

    if wanted(Part::Failing) {
        failing::play(&stage, &first, &empty.0)?;
    }
    if wanted(Part::Crash) {
        crash::play(&stage, &kube, &first, &empty.0)?;
    }
    if wanted(Part::Nodes) {
        nodes(&stage, &kube, (&first, &second), (&empty.0, &empty.1))?;
    }
    drop((first, second));
    stage.clear()
}

fn nodes(stage: &Stage, kube: &Kube, (first, second): (&Room, &Room), empty: (&Picture, &Picture)) -> Result<()> {
    stage.registry().push_addons()?;
    stage.say("the addons' images are in the registry");
    stage.plane().install_addons()?;
    kube.apply(&manifests::kindnet(stage.registry()))?;
    let mut node = node::join(stage, first)?;
    let story = tell(stage, kube, &mut node, second);
    if story.is_err() {
        eprintln!("{}", command::tail_of(&stage.dir().join(format!("{}.log", first.name()))));
        eprintln!("{}", overview(kube));
    }
    story?;
    node.leave(stage, kube)?;
    node::forget_the_clusters_own(first)?;
    first.await_equal(empty.0, &[]).context("after berth leave")?;
    stage.say("berth leave has left nothing behind");
    node::forget_the_clusters_own(second)?;
    kubeadm::forget_the_operators_own(second)?;
    second.await_equal(empty.1, &[]).context("after kubeadm reset")?;
    stage.say("kubeadm reset has left nothing behind but the images");
    Ok(())
}

fn tell(stage: &Stage, kube: &Kube, first: &mut Node<'_>, second: &Room) -> Result<()> {
    first.await_ready(kube)?;
    stage.say("berth join --config: the node is Ready by the configuration that the DaemonSet wrote");
    failing::name_taken(stage, second, first.name())?;
    workload::deploy(stage, kube)?;
    first.is_what_it_says(stage, kube)?;
    failing::joined_twice(stage, first.room())?;
    workload::is_served(stage, kube, first.name())?;
    let mut other = kubeadm::join(stage, kube, second)?;
    workload::is_served(stage, kube, second.name())?;
    rotation::is_live(stage, kube, &[first.room(), second])?;
    workload::is_served_still(stage, kube, &[first.name(), second.name()])?;
    workload::withdraw(stage, kube)?;
    kubeadm::reset(stage, kube, &mut other)
}

/// A room whose registry for Kubernetes' images is ours.
fn build((name, address): (&str, &str), stage: &Stage) -> Result<Room> {
    let room = Room::build(name, address, stage.dir())?;
    room.enter(|| {
        let ours = format!("http://{REGISTRY}");
        for (host, upstream) in [("registry.k8s.io", "https://registry.k8s.io"), (REGISTRY, &ours)] {
            let folder = format!("/etc/berth/certs.d/{host}");
            fs::create_dir_all(&folder)?;
            let text = format!("server = \"{upstream}\"\n[host.\"{ours}\"]\ncapabilities = [\"pull\", \"resolve\"]\n");
            fs::write(format!("{folder}/hosts.toml"), text)?;
        }
        Ok(())
    })?;
    Ok(room)
}

fn overview(kube: &Kube) -> String {
    let ask = |arguments: &[&str]| kube.run(arguments).unwrap_or_else(|error| format!("{error:#}"));
    let nodes = ask(&["get", "nodes,csr", "-o", "wide"]);
    let pods = ask(&["get", "pods", "--all-namespaces", "-o", "wide"]);
    let events = ask(&["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"]);
    let logs = |app| ask(&["logs", "--namespace", "kube-system", "--selector", app, "--prefix", "--tail=20"]);
    let logs = ["k8s-app=kube-proxy", "app=kindnet", "k8s-app=kube-dns"].map(logs).join("\n");
    format!("{nodes}\n{pods}\n{}\n{logs}", command::tail(&events))
}
