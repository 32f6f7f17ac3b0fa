//! A kubelet's part in pods' lives: one worker per pod, and one that removes what belongs to no pod.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use berth_cri_proto::v1 as cri;
use tonic::{Code, Status};

use super::calls::{Caller, Tally};
use super::plan::{self, Goal, Seen, Step};
use crate::cri::config::{self, UNTIL_TERM};

/// A pod that takes more steps than this does not get on.
const STEPS: usize = 300;
const PROBES: usize = 3;
/// Per cent of the pods that are deleted before they are done.
const DELETED_EARLY: u32 = 30;
/// A container that does not know SIGTERM, and one that ends by itself.
const STUBBORN: &str = "trap '' TERM; while :; do sleep 1; done";
const BRIEF: &str = "sleep 0.2";
/// Pause after a call that failed: a kubelet's is a second and more, which would only make this longer.
const PAUSE: Duration = Duration::from_millis(20);
/// How often pods' leftovers are looked for.
const COLLECT: Duration = Duration::from_millis(150);

/// What all workers share.
#[derive(Clone, Debug)]
pub(super) struct Kubelet {
    pub(super) socket: PathBuf,
    pub(super) image: String,
    pub(super) logs: String,
    pub(super) seed: u64,
    pub(super) tally: Arc<Tally>,
    pub(super) pods: Pods,
}

/// The uids of the pods that a worker sees to.
#[derive(Clone, Debug, Default)]
pub(super) struct Pods(Arc<Mutex<BTreeSet<String>>>);

impl Pods {
    fn change<T>(&self, change: impl FnOnce(&mut BTreeSet<String>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One pod and what its worker knows.
struct Pod {
    number: usize,
    uid: String,
    goal: Goal,
    script: &'static str,
    /// Seconds that a stop allows.
    grace: i64,
    /// Steps until it is deleted, done or not.
    deleted_after: Option<usize>,
    probes: usize,
}

impl Pod {
    fn new(number: usize, dice: &mut fastrand::Rng) -> Self {
        let (script, grace) = match dice.u32(0..10) {
            0 => (STUBBORN, dice.i64(0..2)),
            1 => (BRIEF, 30),
            _ => (UNTIL_TERM, 30),
        };
        let early = dice.u32(0..100) < DELETED_EARLY;
        let deleted_after = early.then(|| dice.usize(1..5));
        Self { number, uid: config::uid(number), goal: Goal::Run, script, grace, deleted_after, probes: 0 }
    }
}

impl Kubelet {
    /// Everything of one pod, until no list shows anything of it.
    pub(super) async fn live(&self, number: usize) -> Result<()> {
        let mut dice = fastrand::Rng::with_seed(self.seed ^ ((number as u64) << 20));
        let mut pod = Pod::new(number, &mut dice);
        let mut caller = Caller::new(&self.socket, Some(dice), &self.tally)?;
        self.pods.change(|pods| pods.insert(pod.uid.clone()));
        let mut last = String::from("none");
        for steps in 0..STEPS {
            if pod.deleted_after.is_some_and(|after| after == steps) {
                pod.goal = Goal::Gone;
            }
            match Box::pin(self.step(&mut caller, &mut pod)).await {
                Ok(Step::Nothing) => {
                    self.pods.change(|pods| pods.remove(&pod.uid));
                    return Ok(());
                }
                Ok(_) => {}
                Err(status) => {
                    last = format!("{:?}: {}", status.code(), status.message());
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        let seen = caller.look(Some(&pod.uid)).await;
        bail!(
            "pod {number} is not done after {STEPS} steps; its goal: {:?}; the last error: {last}; seen: {seen:?}",
            pod.goal
        )
    }

    async fn step(&self, caller: &mut Caller, pod: &mut Pod) -> Result<Step, Status> {
        let seen = caller.look(Some(&pod.uid)).await?;
        self.statuses(caller, &seen).await?;
        let step = plan::next(pod.goal, &seen);
        match &step {
            Step::Probe { .. } if pod.probes == PROBES => pod.goal = Goal::Gone,
            Step::Probe { container } => {
                let request =
                    cri::ExecSyncRequest { container_id: container.clone(), cmd: vec!["true".into()], timeout: 10 };
                let answer = caller.exec_sync(request).await?;
                if answer.exit_code != 0 {
                    return Err(Status::unknown(format!("true ended with {}", answer.exit_code)));
                }
                pod.probes += 1;
            }
            Step::Finished => pod.goal = Goal::Gone,
            Step::RunSandbox { attempt } => self.run_sandbox(caller, pod, *attempt).await?,
            Step::Begin { sandbox, attempt } => Box::pin(self.begin(caller, pod, sandbox, *attempt)).await?,
            step => end(caller, step, pod.grace).await?,
        }
        Ok(step)
    }

    /// As a kubelet looks at what it has listed.
    async fn statuses(&self, caller: &mut Caller, seen: &Seen) -> Result<(), Status> {
        // It may have gone since.
        let there = |answer: Result<(), Status>| match answer {
            Err(status) if status.code() == Code::NotFound => Ok(()),
            other => other,
        };
        if let Some(sandbox) = seen.sandboxes.last() {
            let request = cri::PodSandboxStatusRequest { pod_sandbox_id: sandbox.id.clone(), verbose: false };
            there(caller.pod_sandbox_status(request).await.map(drop))?;
        }
        if let Some(container) = seen.containers.last() {
            let request = cri::ContainerStatusRequest { container_id: container.id.clone(), verbose: true };
            there(caller.container_status(request).await.map(drop))?;
        }
        Ok(())
    }

    async fn run_sandbox(&self, caller: &mut Caller, pod: &Pod, attempt: u32) -> Result<(), Status> {
        let config = self.sandbox(pod, attempt)?;
        fs::create_dir_all(&config.log_directory)?;
        let request = cri::RunPodSandboxRequest { config: Some(config), ..Default::default() };
        caller.run_pod_sandbox(request).await.map(drop)
    }

    async fn begin(&self, caller: &mut Caller, pod: &Pod, sandbox: &str, attempt: u32) -> Result<(), Status> {
        let outer = self.sandbox(pod, 0)?;
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config::container(&outer, &self.image, attempt, &["sh", "-c", pod.script])),
            sandbox_config: Some(outer),
        };
        let container_id = Box::pin(caller.create_container(request)).await?.container_id;
        caller.start_container(cri::StartContainerRequest { container_id }).await.map(drop)
    }

    fn sandbox(&self, pod: &Pod, attempt: u32) -> Result<cri::PodSandboxConfig, Status> {
        config::sandbox(pod.number, attempt, &self.logs).map_err(|error| Status::invalid_argument(error.to_string()))
    }

    /// For ever: removes what belongs to no worker's pod, such as a sandbox that came to be after its pod had gone.
    pub(super) async fn collect(&self) -> Result<()> {
        let dice = fastrand::Rng::with_seed(!self.seed);
        let mut caller = Caller::new(&self.socket, Some(dice), &self.tally)?;
        loop {
            // What fails is tried again at the next turn.
            let _ = self.collect_once(&mut caller).await;
            tokio::time::sleep(COLLECT).await;
        }
    }

    /// Ends and removes what no worker sees to; whether nothing else was there.
    pub(super) async fn collect_once(&self, caller: &mut Caller) -> Result<bool, Status> {
        let listed = caller.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await?.items;
        let mut uids: BTreeSet<String> =
            listed.into_iter().filter_map(|sandbox| sandbox.labels.get(config::UID).cloned()).collect();
        let listed = caller.list_containers(cri::ListContainersRequest::default()).await?.containers;
        uids.extend(listed.into_iter().filter_map(|container| container.labels.get(config::UID).cloned()));
        let clean = uids.is_empty();
        for uid in uids {
            if self.pods.change(|pods| pods.contains(&uid)) {
                continue;
            }
            let seen = caller.look(Some(&uid)).await?;
            end(caller, &plan::next(Goal::Gone, &seen), 0).await?;
        }
        Ok(clean)
    }

    /// Until the lists are empty.
    pub(super) async fn collect_all(&self) -> Result<()> {
        let mut caller = Caller::new(&self.socket, None, &self.tally)?;
        let mut last = String::from("none");
        for _ in 0..STEPS {
            match self.collect_once(&mut caller).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(status) => last = format!("{:?}: {}", status.code(), status.message()),
            }
            tokio::time::sleep(PAUSE).await;
        }
        let seen = caller.look(None).await;
        bail!("what belongs to no pod can't be removed: {seen:?}; the last error: {last}")
    }
}

/// Carries out one of the steps towards a pod's end.
async fn end(caller: &mut Caller, step: &Step, grace: i64) -> Result<(), Status> {
    match step {
        Step::StopContainer(id) => {
            let request = cri::StopContainerRequest { container_id: id.clone(), timeout: grace };
            caller.stop_container(request).await.map(drop)
        }
        Step::StopSandbox(id) => {
            caller.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id: id.clone() }).await.map(drop)
        }
        Step::RemoveContainer(id) => {
            caller.remove_container(cri::RemoveContainerRequest { container_id: id.clone() }).await.map(drop)
        }
        Step::RemoveSandbox(id) => {
            // As the kubelet's garbage collection does, which trusts no earlier stop.
            caller.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id: id.clone() }).await?;
            caller.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id: id.clone() }).await.map(drop)
        }
        _ => Ok(()),
    }
}

/// Removes the pods' logs, which are the kubelet's.
pub(super) fn remove_logs(logs: &Path) -> Result<()> {
    for entry in fs::read_dir(logs).context("the pods' logs")? {
        fs::remove_dir_all(entry?.path())?;
    }
    Ok(())
}
