//! What must not change while units come and go.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::kube::{self, Kube};
use crate::scenario::web;
use crate::vm::{Machine, PATIENCE};
use crate::wait;

pub(super) const REPLICAS: usize = 2;
/// For what takes a moment.
const SOON: Duration = Duration::from_secs(30);

/// Prints each process of pods and of their shims with the moment of its start, and the limits that pods have.
const PROCESSES: &str = "cd /sys/fs/cgroup && cat cgroup.subtree_control; \
    for f in $(find kubepods berth -name cgroup.procs | sort); do for p in $(cat $f); do \
    echo $f $p $(cut -d' ' -f22 /proc/$p/stat); done; done; \
    grep -rs . kubepods --include=memory.max --include=cpu.weight --include=pids.max | sort";

/// The pods as the cluster sees them, and their processes as the guest sees them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Picture {
    pods: Vec<Pod>,
    processes: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Pod {
    name: String,
    address: String,
    container: String,
    restarts: u64,
    /// Since when it is Ready: another moment if it was not in between.
    ready: String,
}

impl Picture {
    /// Waits until all pods are Ready.
    pub(super) fn await_ready(kube: &Kube, machine: &mut Machine) -> Result<Self> {
        wait::until("the pods are Ready", PATIENCE, || {
            machine.check()?;
            Self::take(kube, machine)
        })
        .with_context(|| kube.run(&["get", "nodes,pods,events", "-o", "wide"]).unwrap_or_default())
    }

    /// Every pod answers, and all is as it was. A class of pods gets its weight back pod by pod; what else can differ does
    /// so for good.
    pub(super) fn await_unchanged(&self, kube: &Kube, machine: &mut Machine) -> Result<()> {
        self.answers()?;
        wait::until_true("the pods are what they were", SOON, || {
            let after = Self::take(kube, machine)?.context("not all pods are Ready")?;
            ensure!(after == *self, "before {self:#?}\nafter {after:#?}");
            Ok(true)
        })
    }

    /// The same without the agent: the processes are those, and every pod answers.
    pub(super) fn runs_on(&self, machine: &mut Machine) -> Result<()> {
        let processes = machine.run(PROCESSES)?;
        ensure!(processes == self.processes, "processes before\n{}\nnow\n{processes}", self.processes);
        self.answers()
    }

    pub(super) fn answers(&self) -> Result<()> {
        for pod in &self.pods {
            web::answers(&pod.name, &pod.address)?;
        }
        Ok(())
    }

    /// `None` when not all pods are Ready.
    fn take(kube: &Kube, machine: &mut Machine) -> Result<Option<Self>> {
        let pods: Option<Vec<Pod>> = kube.list("pods", "app=web")?.iter().map(Pod::see).collect();
        let Some(mut pods) = pods.filter(|pods| pods.len() == REPLICAS) else { return Ok(None) };
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Some(Self { pods, processes: machine.run(PROCESSES)? }))
    }
}

impl Pod {
    fn see(pod: &Value) -> Option<Self> {
        let ready = kube::turned(pod).filter(|_| kube::ready(pod))?;
        Some(Self {
            name: kube::name(pod),
            address: pod["status"]["podIP"].as_str()?.to_owned(),
            container: kube::container_id(pod)?,
            restarts: kube::container(pod)["restartCount"].as_u64()?,
            ready: ready.to_owned(),
        })
    }
}
