//! What was seen of a pod, and what is remembered about it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::PodStatus;

use crate::plan::{Step, Target};
use crate::probe::Health;
use crate::{Moment, backoff};

/// Everything known about a pod when a plan is made.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Its sandboxes, newest first.
    pub sandboxes: Vec<SeenSandbox>,
    /// Its container instances, newest first.
    pub containers: Vec<SeenContainer>,
    /// Its folders on the node.
    pub files: Presence,
    /// Its cgroup.
    pub cgroup: Presence,
    /// Its volumes.
    pub volumes: Presence,
    /// By container id: what probes say of those that run and declare some.
    pub health: BTreeMap<String, Health>,
    /// What the runtime does not tell.
    pub memory: Memory,
    /// Steps that are being carried out.
    pub busy: BTreeMap<Target, Step>,
    /// The status that was last published, or the API's own when this agent has published none.
    pub published: PodStatus,
}

impl Seen {
    /// The newest instance of a container.
    pub fn latest(&self, name: &str) -> Option<&SeenContainer> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// Whether a step on `target` is being carried out.
    pub fn is_busy(&self, target: &Target) -> bool {
        self.busy.contains_key(target)
    }

    /// The newest sandbox, when it is ready.
    pub fn ready_sandbox(&self) -> Option<&SeenSandbox> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }
}

/// Whether something of the pod is on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Presence {
    /// Not looked at in this run of the agent.
    #[default]
    Unknown,
    /// Made, or brought up to date, in this run.
    Present,
    /// Removed.
    Absent,
}

/// One sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenSandbox {
    /// The runtime's name for it.
    pub id: String,
    /// Which try for this pod.
    pub attempt: u32,
    /// Whether containers can run in it.
    pub ready: bool,
    /// When it was made.
    pub created: Moment,
    /// Its addresses, the primary first; none on the host's network.
    pub ips: Vec<String>,
    /// Whether it shares the host's network.
    pub host_network: bool,
}

/// One container instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenContainer {
    /// The runtime's name for it.
    pub id: String,
    /// Its name in the pod.
    pub name: String,
    /// The sandbox it lies in.
    pub sandbox: String,
    /// How often its name was restarted before.
    pub attempt: u32,
    /// When it was made.
    pub created: Moment,
    /// What it is doing.
    pub state: State,
    /// Seconds that its failure makes its successor wait.
    pub backoff: i64,
    /// The image that the pod's author wrote.
    pub image: String,
    /// The image's digest reference, for `imageID`.
    pub image_ref: String,
    /// Whom it runs as: uid, gid, supplementary groups.
    pub user: Option<(i64, i64, Vec<i64>)>,
    /// Where it logs, an absolute path.
    pub log_path: String,
}

/// What a container instance is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Made, not started.
    Created,
    /// Running.
    Running {
        /// Since when.
        started: Moment,
    },
    /// Ended.
    Exited {
        /// When it began; 0 when it never ran.
        started: Moment,
        /// When it ended.
        finished: Moment,
        /// Its exit code, 128 + n after signal n.
        code: i32,
        /// The runtime's reason, e.g. OOMKilled.
        reason: String,
        /// The runtime's message, followed by the container's own.
        message: String,
    },
    /// The runtime doesn't know.
    Unknown,
}

impl SeenContainer {
    /// Whether it may hold processes.
    pub fn may_run(&self) -> bool {
        matches!(self.state, State::Running { .. } | State::Unknown)
    }

    /// Its exit code, once it has ended.
    pub fn exit_code(&self) -> Option<i32> {
        match self.state {
            State::Exited { code, .. } => Some(code),
            _ => None,
        }
    }
}

/// What is remembered about a pod within one run of the agent. Everything in it can be lost: the plan then only tries
/// again sooner.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// What failed, and when; cleared by success.
    pub failures: BTreeMap<Target, Failure>,
    /// By container name: its image is there, for the instance to be created next.
    pub images: BTreeMap<String, ImageState>,
    /// By container id: its postStart hook has run, and whether well. Forgotten, it is run again where the published
    /// status does not show the instance as running.
    pub hooks: BTreeMap<String, bool>,
    /// Containers whose preStop hook has begun ahead of their turn to end.
    pub pre_stopped: BTreeSet<String>,
    /// Sandboxes that were stopped with success.
    pub stopped: BTreeSet<String>,
    /// When the pod's end began.
    pub ending_since: Option<Moment>,
    /// Set when the worker has told its publisher that the pod is gone.
    pub gone: bool,
}

/// An image that is on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageState {
    /// What the container asks for.
    pub image: String,
    /// The runtime's reference to it, for CreateContainer.
    pub reference: String,
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// CamelCase, for a container's waiting state: ErrImagePull, CreateContainerConfigError, …
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// When.
    pub at: Moment,
    /// How often in a row, from 1.
    pub count: u32,
    /// No retry helps until the pod changes.
    pub permanent: bool,
}

/// Seconds for which a failed pull or start shows its error before it shows that it waits.
pub(crate) const ERROR_SHOWN: i64 = 2;

impl Failure {
    /// When to try again.
    pub fn retry_at(&self, target: &Target) -> Moment {
        let seconds = match target {
            Target::Image(_) => backoff::doubled(backoff::INITIAL, backoff::MAXIMUM, self.count),
            Target::Container(_) => backoff::doubled(5, backoff::MAXIMUM, self.count),
            Target::Sandbox => backoff::doubled(1, 30, self.count),
            Target::Volumes => backoff::doubled(1, 15, self.count),
            _ => backoff::doubled(1, 60, self.count),
        };
        self.at.plus_seconds(seconds)
    }
}

impl Memory {
    /// Folds a failure in.
    pub fn failed(&mut self, target: Target, reason: &'static str, message: String, permanent: bool, now: Moment) {
        let count = self.failures.get(&target).map_or(1, |before| before.count.saturating_add(1));
        self.failures.insert(target, Failure { reason, message, at: now, count, permanent });
    }

    /// Folds a success in.
    pub fn succeeded(&mut self, step: &Step) {
        // Made is not yet started: how often the start has failed still counts.
        if !matches!(step, Step::CreateContainer { .. }) {
            self.failures.remove(&step.target());
        }
        match step {
            Step::StopSandbox { id } => {
                self.stopped.insert(id.clone());
            }
            Step::PostStart { id, .. } => {
                self.hooks.insert(id.clone(), true);
            }
            // The next instance looks for its image anew (imagePullPolicy: Always).
            Step::CreateContainer { container, .. } => {
                self.images.remove(container);
            }
            _ => {}
        }
    }

    /// Something that failures may wait for has changed: they are due now.
    pub fn retry_now(&mut self, concerned: impl Fn(&Target, &Failure) -> bool) {
        for (target, failure) in &mut self.failures {
            if concerned(target, failure) {
                failure.at = Moment(0);
            }
        }
    }

    /// The failure on `target`, if it is not yet time to try again.
    pub fn waiting(&self, target: &Target, now: Moment) -> Option<&Failure> {
        self.failures.get(target).filter(|failure| failure.permanent || failure.retry_at(target) > now)
    }
}
