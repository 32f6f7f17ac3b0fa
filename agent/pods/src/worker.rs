//! One pod's worker: looks, asks the core, begins steps, looks again.

mod tend;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_agent_core::security::ImageUser;
use berth_agent_core::{
    Desired, Failure, Presence, Rejection, Seen, Step, Target, fields, names, plan, security, status,
};
use berth_volumes::{Change, Kind};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, Id, JoinError, JoinHandle, JoinSet};

use crate::carry::{Fact, Job, Trouble, Volumes, carry_out};
use crate::probing::Report;
use crate::shared::{Shared, now};
use crate::worker::tend::Tended;
use crate::{EventKind, observe};

/// How long to wait before the runtime is asked again after it did not answer.
const RETRY_LOOK: Duration = Duration::from_secs(2);

/// How long one look may take.
const LOOK_LIMIT: Duration = Duration::from_secs(20);

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// The pod, as it is declared now.
    Pod(Arc<Pod>),
    /// The pod is no longer declared.
    Gone,
    /// Something happened to it in the runtime; to this container, if that is known.
    Look(Option<String>),
    /// An object changed.
    Object(Change),
    /// The node changed.
    Node,
}

/// What others may read of a worker.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) pod: Arc<Pod>,
    pub(crate) status: PodStatus,
    /// By container name: the attempts of its instances, newest first, and whether each has begun.
    pub(crate) instances: BTreeMap<String, Vec<(u32, bool)>>,
    /// Ids and states as last seen, to compare with a listing.
    pub(crate) signature: Vec<(String, i32)>,
}

pub(crate) struct Worker {
    shared: Arc<Shared>,
    view: Arc<Mutex<View>>,
    pod: Arc<Pod>,
    gone: bool,
    /// Only what the runtime or the disk still holds of a pod that nobody declares: its end is told to nobody.
    leftover: bool,
    seen: Seen,
    volumes: Arc<Volumes>,
    image_users: BTreeMap<String, ImageUser>,
    jobs: JoinSet<Result<Fact, Trouble>>,
    /// What each job is about.
    running: BTreeMap<Id, (Target, Step, AbortHandle)>,
    maintain: Option<JoinHandle<()>>,
    /// What is under way beside the steps for each instance.
    tended: Tended,
    reports: mpsc::UnboundedReceiver<Report>,
    /// Whether what was seen is all there is.
    looked: bool,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, view: Arc<Mutex<View>>, pod: Arc<Pod>, gone: bool, leftover: bool) -> Self {
        let published = {
            let view = view.lock().unwrap_or_else(PoisonError::into_inner);
            // After a panic the view is newer than what the API said at the start.
            if view.status == PodStatus::default() {
                pod.status.clone().unwrap_or_default()
            } else {
                view.status.clone()
            }
        };
        let (tended, reports) = Tended::new();
        let mut seen = Seen { published, ..Seen::default() };
        tend::recall(&mut seen);
        Self {
            shared,
            view,
            pod,
            gone,
            leftover,
            seen,
            volumes: Arc::default(),
            image_users: BTreeMap::new(),
            jobs: JoinSet::new(),
            running: BTreeMap::new(),
            maintain: None,
            tended,
            reports,
            looked: false,
        }
    }

    /// Works until nothing of the pod is left, or the inbox closes.
    pub(crate) async fn run(mut self, inbox: &mut mpsc::UnboundedReceiver<Message>) -> End {
        loop {
            if !self.looked {
                self.look(None).await;
            }
            let wake = if self.looked { self.advance() } else { Some(RETRY_LOOK) };
            if self.seen.memory.gone {
                self.stop_maintaining().await;
                return End::Gone;
            }
            let sleep = tokio::time::sleep(wake.unwrap_or(Duration::from_secs(3600)));
            tokio::select! {
                biased;
                Some(done) = self.jobs.join_next_with_id() => self.done(done).await,
                Some(report) = self.reports.recv() => tend::hear(&mut self.seen, &report),
                message = inbox.recv() => match message {
                    Some(message) => {
                        self.hear(message).await;
                        while let Ok(message) = inbox.try_recv() {
                            self.hear(message).await;
                        }
                    }
                    None => {
                        self.stop_maintaining().await;
                        return End::Closed;
                    }
                },
                () = sleep => {}
            }
        }
    }

    fn desired(&self) -> Desired {
        let spec = self.pod.spec.as_ref();
        Desired {
            pod: self.pod.clone(),
            gone: self.gone,
            refused: spec.and_then(fields::refused),
            rejected: self.rejection(),
            host_ips: self.shared.node().ips,
            runtime: self.shared.runtime.clone(),
        }
    }

    /// Why this node can't take the pod at all. A pod that has begun is never turned away afterwards.
    fn rejection(&self) -> Option<Rejection> {
        let spec = self.pod.spec.as_ref().filter(|_| self.seen.containers.is_empty())?;
        if let Some(os) = spec.os.as_ref().filter(|os| os.name != "linux") {
            return Some(Rejection {
                reason: "PodOSNotSupported".to_owned(),
                message: format!("Failed to admit pod as the OS field doesn't match node OS: {:?}", os.name),
            });
        }
        let name = security::forbidden_sysctl(spec, &self.shared.config.allowed_unsafe_sysctls)?;
        Some(Rejection {
            reason: "SysctlForbidden".to_owned(),
            message: format!("forbidden sysctl: {name:?} not allowlisted"),
        })
    }

    /// Begins what the core says; the answer is how long to wait at most.
    fn advance(&mut self) -> Option<Duration> {
        let now = now();
        let desired = self.desired();
        let ending = plan::end(&desired, &self.seen, now).is_some();
        if ending && self.seen.memory.ending_since.is_none() {
            self.seen.memory.ending_since = Some(now);
        }
        self.tend(ending);
        let plan = plan(&desired, &self.seen, now);
        for planned in &plan.steps {
            tracing::debug!(pod = names::describe(&self.pod), step = ?planned.step, why = planned.why, "step");
            self.begin(planned.step.clone());
        }
        self.publish(&desired);
        plan.wake().map(|until| Duration::from_nanos(until.since(now).max(0).unsigned_abs()) + Duration::from_millis(1))
    }

    fn begin(&mut self, step: Step) {
        match &step {
            Step::Wait { .. } | Step::Refuse { .. } => return,
            Step::PreStop { container, id } => {
                self.seen.memory.pre_stopped.insert(id.clone());
                self.pre_stop(container, id);
                return;
            }
            Step::Abandon(target) => {
                for (_, _, handle) in self.running.values().filter(|(of, _, _)| of == target) {
                    handle.abort();
                }
                return;
            }
            Step::ReportGone => {
                if !self.leftover {
                    self.shared.publisher.deleted(&self.pod);
                }
                self.seen.memory.gone = true;
                return;
            }
            _ => {}
        }
        let sandbox = self.seen.sandboxes.first();
        let (container, id) = match &step {
            Step::RemoveContainer { container, id } | Step::StartContainer { container, id } => {
                (Some(container), Some(id))
            }
            Step::CreateContainer { container, .. } => (Some(container), None),
            _ => (None, None),
        };
        let instance = id.and_then(|id| self.seen.containers.iter().find(|c| c.id == *id)).map(|c| c.attempt);
        let job = Job {
            shared: self.shared.clone(),
            pod: self.pod.clone(),
            ips: sandbox
                .map(|sandbox| sandbox.ips.clone())
                .filter(|ips| !ips.is_empty())
                .unwrap_or_else(|| self.host_ips()),
            attempt: sandbox.map_or(0, |sandbox| sandbox.attempt),
            volumes: self.volumes.clone(),
            image_user: container.and_then(|name| self.image_users.get(name)).cloned().unwrap_or_default(),
            instance,
            ended: self.tended.ended(&step),
            pre_stop: match &step {
                Step::StopContainer { container, id, .. } => self.pre_stop(container, id),
                _ => None,
            },
            step: step.clone(),
        };
        // What fills the volumes must have ended before they are taken away.
        let before = if step == Step::ClearVolumes { self.maintain.take() } else { None };
        let target = step.target();
        let handle = self.jobs.spawn(async move {
            if let Some(maintain) = before {
                maintain.abort();
                let _ = maintain.await;
            }
            carry_out(job).await
        });
        self.seen.busy.insert(target.clone(), step.clone());
        self.running.insert(handle.id(), (target, step, handle));
    }

    /// The pod's addresses on the host's network.
    fn host_ips(&self) -> Vec<String> {
        let host = self.pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
        if host { self.shared.node().ips } else { Vec::new() }
    }

    /// Folds in how a step went.
    async fn done(&mut self, done: Result<(Id, Result<Fact, Trouble>), JoinError>) {
        let (id, outcome) = match done {
            Ok((id, outcome)) => (id, outcome),
            Err(error) if error.is_cancelled() => {
                if let Some((target, ..)) = self.running.remove(&error.id()) {
                    self.free(&target);
                }
                return;
            }
            Err(error) => {
                tracing::error!(pod = names::describe(&self.pod), %error, "a step panicked");
                let trouble = Trouble { reason: "InternalError", message: error.to_string(), permanent: false };
                (error.id(), Err(trouble))
            }
        };
        let Some((target, step, _)) = self.running.remove(&id) else { return };
        self.free(&target);
        match outcome {
            Ok(fact) => {
                self.seen.memory.succeeded(&step);
                self.learn(&step, fact).await;
            }
            Err(trouble) => {
                tracing::info!(pod = names::describe(&self.pod), ?step, error = trouble.message, "step failed");
                if let Step::PostStart { id, .. } = &step {
                    self.seen.memory.hooks.insert(id.clone(), false);
                }
                self.seen.memory.failed(target, trouble.reason, trouble.message, trouble.permanent, now());
                // What the failed step left behind must be seen.
                self.look(None).await;
            }
        }
    }

    /// A target is free once no job is about it: a stop can be overtaken by a sooner one.
    fn free(&mut self, target: &Target) {
        if !self.running.values().any(|(of, ..)| of == target) {
            self.seen.busy.remove(target);
        }
    }

    async fn learn(&mut self, step: &Step, fact: Fact) {
        match (step, fact) {
            (Step::PrepareHost, _) => {
                self.seen.files = Presence::Present;
                self.seen.cgroup = Presence::Present;
            }
            (Step::PrepareVolumes, Fact::Volumes(paths)) => {
                self.volumes = Arc::new(paths);
                self.seen.volumes = Presence::Present;
                self.start_maintaining();
            }
            (_, Fact::Sandbox(id)) => match in_time(observe::sandbox(&self.shared.cri, &id)).await {
                Ok(sandbox) => {
                    // An event may have shown it first.
                    self.seen.sandboxes.retain(|known| known.id != id);
                    self.seen.sandboxes.extend(sandbox);
                    self.sort();
                }
                Err(_) => self.looked = false,
            },
            (_, Fact::Image(state, user)) => {
                let Step::PullImage { container, .. } = step else { return };
                self.seen.memory.images.insert(container.clone(), state);
                self.image_users.insert(container.clone(), user);
            }
            // An event may have shown it first.
            (_, Fact::Container(container)) if self.seen.containers.iter().all(|known| known.id != container.id) => {
                self.seen.containers.push(*container);
                self.sort();
            }
            (Step::StartContainer { id, .. } | Step::StopContainer { id, .. }, _) => self.look(Some(id.clone())).await,
            (Step::StopSandbox { id }, _) => {
                for sandbox in self.seen.sandboxes.iter_mut().filter(|sandbox| sandbox.id == *id) {
                    sandbox.ready = false;
                }
                // Whatever ran in it has ended.
                if self.seen.containers.iter().any(|container| container.may_run()) {
                    self.look(None).await;
                }
            }
            (Step::RemoveContainer { id, .. }, _) => self.seen.containers.retain(|container| container.id != *id),
            (Step::RemoveSandbox { id }, _) => {
                self.seen.containers.retain(|container| container.sandbox != *id);
                self.seen.sandboxes.retain(|sandbox| sandbox.id != *id);
            }
            (Step::ClearVolumes, _) => {
                self.volumes = Arc::default();
                self.seen.volumes = Presence::Absent;
            }
            (Step::ClearCgroup, _) => self.seen.cgroup = Presence::Absent,
            (Step::ClearFiles, _) => self.seen.files = Presence::Absent,
            _ => {}
        }
    }

    fn sort(&mut self) {
        observe::sort(&mut self.seen.sandboxes, &mut self.seen.containers);
    }

    /// Asks the runtime about one container, or about everything.
    async fn look(&mut self, container: Option<String>) {
        let logs = self.shared.log_folder(&self.pod);
        if let Some(id) = container
            && let Some(known) = self.seen.containers.iter().find(|known| known.id == id)
        {
            let sandbox = known.sandbox.clone();
            match in_time(observe::container(&self.shared.cri, &id, Some(&sandbox), &logs)).await {
                Ok(Some(container)) => {
                    let known = self.seen.containers.iter_mut().find(|known| known.id == id);
                    if let Some(known) = known {
                        *known = container;
                    }
                    // What ended the container may have ended its sandbox.
                    self.look_at_sandbox(&sandbox).await;
                }
                Ok(None) => self.seen.containers.retain(|known| known.id != id),
                Err(error) => {
                    tracing::warn!(pod = names::describe(&self.pod), %error, "the runtime does not answer");
                    self.looked = false;
                }
            }
            return;
        }
        match in_time(observe::pod(&self.shared.cri, names::uid(&self.pod), &logs)).await {
            Ok((sandboxes, containers)) => {
                self.seen.sandboxes = sandboxes;
                self.seen.containers = containers;
                self.looked = true;
            }
            Err(error) => {
                tracing::warn!(pod = names::describe(&self.pod), %error, "the runtime does not answer");
                self.looked = false;
            }
        }
    }

    async fn look_at_sandbox(&mut self, id: &str) {
        match in_time(observe::sandbox(&self.shared.cri, id)).await {
            Ok(Some(sandbox)) => {
                for known in self.seen.sandboxes.iter_mut().filter(|known| known.id == id) {
                    known.clone_from(&sandbox);
                }
            }
            Ok(None) => self.seen.sandboxes.retain(|known| known.id != id),
            Err(_) => self.looked = false,
        }
    }

    async fn hear(&mut self, message: Message) {
        match message {
            Message::Pod(pod) => {
                let spec_changed = pod.spec != self.pod.spec;
                let shown_changed = pod.metadata.labels != self.pod.metadata.labels
                    || pod.metadata.annotations != self.pod.metadata.annotations;
                self.pod = pod;
                self.gone = false;
                if spec_changed {
                    // What was refused or failed may be right now.
                    for failure in self.seen.memory.failures.values_mut() {
                        failure.permanent = false;
                    }
                    self.seen.memory.retry_now(|target, _| !matches!(target, Target::Instance(_)));
                }
                if shown_changed && self.maintain.is_some() {
                    self.start_maintaining();
                }
            }
            Message::Gone => self.gone = true,
            Message::Look(container) => self.look(container).await,
            Message::Object(change) => {
                if change.namespace == names::namespace(&self.pod) {
                    self.seen.memory.retry_now(|target, failure| waits_for(target, failure, change.kind));
                }
            }
            Message::Node => {}
        }
    }

    fn start_maintaining(&mut self) {
        if let Some(old) = self.maintain.take() {
            old.abort();
        }
        let (shared, pod) = (self.shared.clone(), self.pod.clone());
        self.maintain = Some(tokio::spawn(async move {
            let facts = shared.volume_facts();
            match berth_volumes::maintain(&pod, shared.objects.as_ref(), &shared.config.root_dir, &facts).await {}
        }));
    }

    async fn stop_maintaining(&mut self) {
        if let Some(maintain) = self.maintain.take() {
            maintain.abort();
            let _ = maintain.await;
        }
    }

    /// Tells the publisher what changed, and readers what is.
    fn publish(&mut self, desired: &Desired) {
        if self.leftover {
            return;
        }
        let status = status(desired, &self.seen, now());
        let changed = status != self.seen.published;
        if changed {
            self.tell_backoff(&status);
            self.seen.published = status.clone();
            self.shared.publisher.publish(&self.pod, status.clone());
        }
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        view.pod = self.pod.clone();
        view.status = status;
        view.instances.clear();
        for container in &self.seen.containers {
            let begun = !matches!(container.state, berth_agent_core::State::Created);
            view.instances.entry(container.name.clone()).or_default().push((container.attempt, begun));
        }
        view.signature = observe::signature(&self.seen.sandboxes, &self.seen.containers);
    }

    /// Events for containers that have just begun to wait.
    fn tell_backoff(&self, status: &PodStatus) {
        let reason = |status: &PodStatus, name: &str| {
            let lists = [&status.init_container_statuses, &status.container_statuses];
            let found = lists.into_iter().flatten().flatten().find(|container| container.name == name)?;
            found.state.as_ref()?.waiting.as_ref()?.reason.clone()
        };
        for container in self.pod.spec.iter().flat_map(berth_agent_core::qos::containers) {
            let name = container.name.as_str();
            let now = reason(status, name);
            if now == reason(&self.seen.published, name) {
                continue;
            }
            let event = |kind, message| self.shared.event(&self.pod, Some(name), kind, "BackOff", message);
            match now.as_deref() {
                Some("CrashLoopBackOff") => {
                    let pod = names::describe(&self.pod);
                    event(EventKind::Warning, format!("Back-off restarting failed container {name} in pod {pod}"));
                }
                Some("ImagePullBackOff") => {
                    let image = container.image.as_deref().unwrap_or_default();
                    event(EventKind::Normal, format!("Back-off pulling image {image:?}"));
                }
                _ => {}
            }
        }
    }
}

/// A look at the runtime that does not hold the worker up for long.
async fn in_time<T>(look: impl Future<Output = Result<T, tonic::Status>>) -> Result<T, tonic::Status> {
    let late = |_| Err(tonic::Status::deadline_exceeded("the runtime did not answer in time"));
    tokio::time::timeout(LOOK_LIMIT, look).await.unwrap_or_else(late)
}

/// Whether a failure may be healed by a change of an object of this kind.
fn waits_for(target: &Target, failure: &Failure, kind: Kind) -> bool {
    match target {
        Target::Volumes => !failure.permanent,
        Target::Container(_) => failure.reason == "CreateContainerConfigError" && kind != Kind::ServiceAccountToken,
        Target::Image(_) => kind == Kind::Secret,
        _ => false,
    }
}

/// How a worker ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing of the pod is left.
    Gone,
    /// The agent ends.
    Closed,
}
