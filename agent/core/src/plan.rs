//! What to do next for one pod.
//!
//! [`plan`] is asked after every change. It answers with the steps that can begin now; steps of one answer do not wait
//! for each other. What is being carried out ([`Seen::busy`]) is never asked for twice, except to stop a container
//! sooner.
//!
//! Main containers start in the order declared, each once its predecessor has started or failed; init containers run
//! one after another, and sidecars among them stay until all others have ended. Source: `kubernetes@v1.37.2:pkg/kubelet/kuberuntime/kuberuntime_manager.go#computePodActions`
//! and `pkg/kubelet/pod_workers.go`.

mod ending;
mod role;
mod running;

pub(crate) use role::{is_sidecar, restarts, starts_again};
pub use running::is_hooked;
pub(crate) use running::{SandboxNeed, sandbox_need, unhooked};

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::fields::Refusal;
use crate::{Moment, Seen};

/// What is wanted of a pod.
#[derive(Debug, Clone)]
pub struct Desired {
    /// As its source declares it.
    pub pod: Arc<Pod>,
    /// It is no longer declared.
    pub gone: bool,
    /// It uses a field that Berth does not implement.
    pub refused: Option<Refusal>,
    /// This node can't take it at all.
    pub rejected: Option<Rejection>,
    /// The node's addresses.
    pub host_ips: Vec<String>,
    /// The runtime's name, which container ids begin with.
    pub runtime: String,
}

impl Desired {
    /// The pod's spec.
    pub fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }
}

/// Why a node turns a pod away: it fails with this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// CamelCase: SysctlForbidden, PodOSNotSupported, …
    pub reason: String,
    /// For people.
    pub message: String,
}

/// What a step changes; at most one step is carried out on each at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// The pod's folders and cgroup.
    Host,
    /// Its volumes.
    Volumes,
    /// A new sandbox.
    Sandbox,
    /// The image of a container, by the container's name.
    Image(String),
    /// A container, by its name.
    Container(String),
    /// The end of a container instance, by its id.
    Instance(String),
    /// The end of a sandbox, by its id.
    OldSandbox(String),
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the pod's folders and its cgroup.
    PrepareHost,
    /// Make its volumes and keep them current from now on.
    PrepareVolumes,
    /// Make a sandbox with its network.
    CreateSandbox {
        /// Which try.
        attempt: u32,
    },
    /// See to it that a container's image is on the node, as its pull policy says.
    PullImage {
        /// The container's name.
        container: String,
        /// The image as the pod names it.
        image: String,
    },
    /// Make a container.
    CreateContainer {
        /// Its name.
        container: String,
        /// Where.
        sandbox: String,
        /// The runtime's reference to its image.
        image_ref: String,
        /// How often its name was restarted before.
        attempt: u32,
        /// Seconds that its failure will make its successor wait.
        backoff: i64,
    },
    /// Start a container that was made.
    StartContainer {
        /// Its name.
        container: String,
        /// Its id.
        id: String,
    },
    /// Run the postStart hook of a container that has started.
    PostStart {
        /// Its name.
        container: String,
        /// Its id.
        id: String,
    },
    /// Begin the preStop hook of a container whose turn to end has not come.
    PreStop {
        /// Its name.
        container: String,
        /// Its id.
        id: String,
    },
    /// End a container: its preStop hook, its stop signal, and SIGKILL at the deadline.
    StopContainer {
        /// Its name.
        container: String,
        /// Its id.
        id: String,
        /// Seconds from now until SIGKILL.
        grace: i64,
        /// When that is.
        deadline: Moment,
        /// For the event.
        message: String,
    },
    /// End whatever runs in a sandbox and take its network down.
    StopSandbox {
        /// Its id.
        id: String,
    },
    /// Remove an ended container with its log.
    RemoveContainer {
        /// Its name.
        container: String,
        /// Its id.
        id: String,
    },
    /// Remove an ended sandbox and what is left in it.
    RemoveSandbox {
        /// Its id.
        id: String,
    },
    /// Unmount and remove the pod's volumes.
    ClearVolumes,
    /// Remove its cgroup.
    ClearCgroup,
    /// Remove its folders and logs.
    ClearFiles,
    /// Give up a step that no longer makes sense.
    Abandon(Target),
    /// Nothing of the pod is left: tell its source.
    ReportGone,
    /// Do nothing until then.
    Wait {
        /// When to ask again.
        until: Moment,
    },
    /// Do nothing until the pod changes.
    Refuse {
        /// The field that Berth does not implement.
        path: String,
    },
}

impl Step {
    /// What the step changes.
    pub fn target(&self) -> Target {
        match self {
            Self::PrepareHost | Self::ClearCgroup | Self::ClearFiles | Self::ReportGone => Target::Host,
            Self::Wait { .. } | Self::Refuse { .. } => Target::Host,
            Self::PrepareVolumes | Self::ClearVolumes => Target::Volumes,
            Self::CreateSandbox { .. } => Target::Sandbox,
            Self::PullImage { container, .. } => Target::Image(container.clone()),
            Self::CreateContainer { container, .. }
            | Self::StartContainer { container, .. }
            | Self::PostStart { container, .. } => Target::Container(container.clone()),
            Self::PreStop { id, .. } | Self::StopContainer { id, .. } | Self::RemoveContainer { id, .. } => {
                Target::Instance(id.clone())
            }
            Self::StopSandbox { id } | Self::RemoveSandbox { id } => Target::OldSandbox(id.clone()),
            Self::Abandon(target) => target.clone(),
        }
    }
}

/// A step and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// What to do.
    pub step: Step,
    /// Why, for the log.
    pub why: String,
}

/// What to do now, and when to ask again at the latest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Steps to begin now, in order.
    pub steps: Vec<Planned>,
}

impl Plan {
    pub(crate) fn push(&mut self, step: Step, why: impl Into<String>) {
        self.steps.push(Planned { step, why: why.into() });
    }

    /// Adds a step unless its target is busy or has failed and must wait; `true` when it was added.
    pub(crate) fn attempt(&mut self, seen: &Seen, now: Moment, step: Step, why: impl Into<String>) -> bool {
        let target = step.target();
        if seen.is_busy(&target) || self.steps.iter().any(|planned| planned.step.target() == target) {
            return false;
        }
        if let Some(failure) = seen.memory.waiting(&target, now) {
            if !failure.permanent {
                self.push(Step::Wait { until: failure.retry_at(&target) }, failure.message.clone());
            }
            return false;
        }
        self.push(step, why);
        true
    }

    /// When to ask again without a change.
    pub fn wake(&self) -> Option<Moment> {
        self.steps
            .iter()
            .filter_map(|planned| match planned.step {
                Step::Wait { until } => Some(until),
                _ => None,
            })
            .min()
    }
}

/// Why a pod runs no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Seconds for its containers, from [`crate::Memory::ending_since`].
    pub grace: i64,
    /// Whether everything of it is to be removed.
    pub remove: bool,
    /// A new terminal phase: Failed with this.
    pub failed: Option<Rejection>,
    /// For the log.
    pub why: &'static str,
}

/// Whether, and how, the pod is to end.
pub fn end(desired: &Desired, seen: &Seen, now: Moment) -> Option<End> {
    let pod = &desired.pod;
    let declared = desired.spec().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
    let removal = |why, grace: i64| End { grace: grace.max(MINIMUM_GRACE), remove: true, failed: None, why };
    if pod.metadata.deletion_timestamp.is_some() {
        return Some(removal("the pod was deleted", pod.metadata.deletion_grace_period_seconds.unwrap_or(declared)));
    }
    if desired.gone {
        return Some(removal("the pod is no longer declared", declared));
    }
    let stop = |why, failed| Some(End { grace: declared.max(MINIMUM_GRACE), remove: false, failed, why });
    if let Some(rejection) = &desired.rejected {
        return stop("the node rejects the pod", Some(rejection.clone()));
    }
    if matches!(seen.published.phase.as_deref(), Some("Failed" | "Succeeded")) {
        return stop("the pod has ended", None);
    }
    if deadline(desired, seen).is_some_and(|deadline| deadline <= now) {
        return stop(
            "the pod's active deadline has passed",
            Some(Rejection {
                reason: "DeadlineExceeded".to_owned(),
                message: "Pod was active on the node longer than the specified deadline".to_owned(),
            }),
        );
    }
    None
}

/// Containers always get so many seconds (`minimumGracePeriodInSeconds`).
const MINIMUM_GRACE: i64 = 2;

/// When `activeDeadlineSeconds` ends the pod.
fn deadline(desired: &Desired, seen: &Seen) -> Option<Moment> {
    let seconds = desired.spec()?.active_deadline_seconds?;
    let start = seen.published.start_time.as_ref()?;
    Some(Moment::from_api(start).plus_seconds(seconds))
}

/// The steps to begin now.
pub fn plan(desired: &Desired, seen: &Seen, now: Moment) -> Plan {
    let mut plan = Plan::default();
    if let Some(end) = end(desired, seen, now) {
        ending::plan(desired.spec(), seen, &end, now, &mut plan);
        return plan;
    }
    if let Some(refusal) = &desired.refused {
        plan.push(Step::Refuse { path: refusal.path.clone() }, refusal.to_string());
        return plan;
    }
    if let Some(deadline) = deadline(desired, seen) {
        plan.push(Step::Wait { until: deadline }, "activeDeadlineSeconds");
    }
    running::plan(desired, seen, now, &mut plan);
    plan
}

#[cfg(test)]
mod tests;
