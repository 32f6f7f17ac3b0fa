//! All pods of this node.

mod route;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use berth_agent_core::names;
use berth_cri_proto::v1 as cri;
use berth_resources::Cgroups;
use berth_volumes::Objects;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use crate::shared::Shared;
use crate::worker::{End, Message, View, Worker};
use crate::{Config, Cri, NodeFacts, Publisher};

/// How long a worker that panicked stays down.
const AFTER_PANIC: Duration = Duration::from_secs(5);

/// Where a pod is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// The API server.
    Api,
    /// A folder of manifests.
    Files,
}

/// A pod as it is desired, and as it is.
#[derive(Debug, Clone)]
pub struct PodView {
    /// As declared by its source.
    pub pod: Arc<Pod>,
    /// Its source.
    pub source: Source,
    /// As last published.
    pub status: PodStatus,
}

/// Why a container's log can't be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// No such pod here.
    #[error("pod {0:?} not found")]
    NoPod(String),
    /// The pod declares no such container.
    #[error("container {container:?} in pod {pod:?} is not valid")]
    NoContainer {
        /// The pod's name.
        pod: String,
        /// What was asked for.
        container: String,
    },
    /// The container did not start yet.
    #[error("container {container:?} in pod {pod:?} is waiting to start: {reason}")]
    Waiting {
        /// The pod's name.
        pod: String,
        /// The container's name.
        container: String,
        /// Its waiting reason.
        reason: String,
    },
    /// It has run only once.
    #[error("previous terminated container {container:?} in pod {pod:?} not found")]
    NoPrevious {
        /// The pod's name.
        pod: String,
        /// The container's name.
        container: String,
    },
}

/// Why the workers can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The runtime does not answer.
    #[error("the container runtime does not answer: {0}")]
    Runtime(Box<tonic::Status>),
    /// The pod cgroups can't be made.
    #[error("pod cgroups: {0}")]
    Cgroups(Box<berth_cgroup::CgroupError>),
}

/// All pods of this node.
#[derive(Debug)]
pub struct Pods {
    shared: Arc<Shared>,
    book: Mutex<Book>,
    /// Told whenever a worker ends.
    ended: Notify,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    this: Weak<Self>,
}

#[derive(Debug, Default)]
struct Book {
    /// By UID.
    workers: BTreeMap<String, Handle>,
    /// Sources that have not yet told all their pods.
    awaited: BTreeSet<Source>,
    /// No new workers: the agent ends.
    closed: bool,
}

#[derive(Debug)]
struct Handle {
    source: Source,
    view: Arc<Mutex<View>>,
    inbox: mpsc::UnboundedSender<Message>,
    task: JoinHandle<()>,
    /// It was told that the pod is gone.
    gone: bool,
    /// Nobody declares it.
    leftover: bool,
    /// What begins when it has ended: the same UID again, or the same static pod with other content.
    next: Option<(Source, Arc<Pod>)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a name can be part of a path.
fn is_component(text: &str) -> bool {
    !text.is_empty() && text.len() <= 253 && !text.contains(['/', '\0']) && text != "." && text != ".."
}

impl Pods {
    /// Adopts what the runtime already runs and starts routing its events. `sources` names every source that will call
    /// [`Pods::synced`]: until all have, nothing that the runtime runs is taken for an orphan.
    ///
    /// # Errors
    /// The runtime does not answer, or the pod cgroups can't be made.
    pub async fn start(
        config: Config,
        runtime: Cri,
        objects: Arc<dyn Objects>,
        publisher: Arc<dyn Publisher>,
        sources: &[Source],
    ) -> Result<Arc<Self>, StartError> {
        let version = runtime.version(cri::VersionRequest { version: "0.1.0".to_owned() }).await;
        let version = version.map_err(|status| StartError::Runtime(Box::new(status)))?;
        let cgroups = if config.cgroups_per_qos {
            Some(Cgroups::open(&config.cgroup_root).map_err(|error| StartError::Cgroups(Box::new(error)))?)
        } else {
            None
        };
        let shared = Arc::new(Shared {
            pulls: Semaphore::new(config.max_parallel_pulls.unwrap_or(Semaphore::MAX_PERMITS)),
            choosing_users: Mutex::default(),
            config,
            cri: runtime,
            objects,
            publisher,
            cgroups,
            node: watch::Sender::new(NodeFacts::default()),
            runtime: version.runtime_name,
        });
        let book = Book { awaited: sources.iter().copied().collect(), ..Book::default() };
        let pods = Arc::new_cyclic(|this| Self {
            shared,
            book: Mutex::new(book),
            ended: Notify::new(),
            tasks: Mutex::default(),
            this: this.clone(),
        });
        let events = pods.shared.cri.events().await;
        lock(&pods.tasks).extend([
            tokio::spawn(route::runtime(Arc::downgrade(&pods), events)),
            tokio::spawn(route::relist(Arc::downgrade(&pods))),
            tokio::spawn(route::objects(Arc::downgrade(&pods))),
        ]);
        Ok(pods)
    }

    /// Tells the workers what the node knows of itself. Call it before the first pod is set, and when it changes.
    pub fn set_node(&self, node: NodeFacts) {
        let changed = self.shared.node.send_if_modified(|old| {
            let changed = *old != node;
            *old = node;
            changed
        });
        if changed {
            for handle in lock(&self.book).workers.values() {
                let _ = handle.inbox.send(Message::Node);
            }
        }
    }

    /// A pod was added or changed. It is known by its UID. One whose name or UID can't be part of a path is refused, and
    /// logged.
    pub fn set(&self, source: Source, pod: Pod) {
        let pod = Arc::new(pod);
        let uid = names::uid(&pod);
        if ![uid, names::name(&pod), names::namespace(&pod)].into_iter().all(is_component) {
            tracing::error!(pod = names::describe(&pod), "its name, namespace or UID is not usable: ignored");
            return;
        }
        let mut book = lock(&self.book);
        if book.closed {
            return;
        }
        if let Some(handle) = book.workers.get_mut(uid) {
            if handle.gone {
                handle.next = Some((source, pod));
            } else {
                let _ = handle.inbox.send(Message::Pod(pod));
            }
            return;
        }
        if source == Source::Files
            && let Some(old) = book.workers.values_mut().find(|handle| same_name(handle, &pod))
        {
            // A static pod with new content has a new UID, and waits until the old one is gone.
            old.next = Some((source, pod));
            return;
        }
        let handle = self.spawn(source, pod, false, false);
        book.workers.insert(handle.0, handle.1);
    }

    /// A pod is no longer declared (deleted from the API without grace, or its file is gone): it is stopped with its
    /// grace period, and everything of it removed.
    pub fn remove(&self, _source: Source, uid: &str) {
        let mut book = lock(&self.book);
        for handle in book.workers.values_mut() {
            if handle.next.as_ref().is_some_and(|(_, next)| names::uid(next) == uid) {
                handle.next = None;
            }
        }
        if let Some(handle) = book.workers.get_mut(uid) {
            handle.gone = true;
            let _ = handle.inbox.send(Message::Gone);
        }
    }

    /// The source has told every pod that it declares: what it didn't name is gone. Call it again after a gap (a
    /// watch that had to list anew) with the complete list of UIDs.
    pub fn synced(&self, source: Source, uids: &[String]) {
        let told: BTreeSet<&str> = uids.iter().map(String::as_str).collect();
        let mut book = lock(&self.book);
        let lost: Vec<String> = book
            .workers
            .iter()
            .filter(|(uid, handle)| handle.source == source && !handle.gone && !told.contains(uid.as_str()))
            .map(|(uid, _)| uid.clone())
            .collect();
        let complete = book.awaited.remove(&source) && book.awaited.is_empty();
        drop(book);
        for uid in lost {
            self.remove(source, &uid);
        }
        if complete && let Some(pods) = self.this.upgrade() {
            let task = tokio::spawn(async move { pods.sweep().await });
            lock(&self.tasks).push(task);
        }
    }

    /// Takes away what the runtime and the disk hold of pods that no source declares.
    async fn sweep(self: Arc<Self>) {
        let mut found: BTreeMap<String, Pod> = BTreeMap::new();
        for uid in berth_volumes::leftovers(&self.shared.config.root_dir).unwrap_or_default() {
            found.entry(uid.clone()).or_insert_with(|| route::leftover(uid, String::new(), String::new(), None));
        }
        match route::list(&self.shared.cri).await {
            Ok(listed) => found.extend(listed.into_iter().map(|(uid, entry)| (uid, entry.pod))),
            Err(error) => tracing::warn!(%error, "the runtime can't be listed: leftovers of earlier pods stay"),
        }
        let mut book = lock(&self.book);
        for (uid, pod) in found {
            if book.closed || book.workers.contains_key(&uid) || !is_component(&uid) {
                continue;
            }
            tracing::info!(pod = names::describe(&pod), "nobody declares this pod any more: removing it");
            let (uid, mut handle) = self.spawn(Source::Files, Arc::new(pod), true, true);
            handle.gone = true;
            book.workers.insert(uid, handle);
        }
    }

    fn spawn(&self, source: Source, pod: Arc<Pod>, gone: bool, leftover: bool) -> (String, Handle) {
        let uid = names::uid(&pod).to_owned();
        let status = pod.status.clone().unwrap_or_default();
        let view = Arc::new(Mutex::new(View { pod: pod.clone(), status, ..View::default() }));
        let (inbox, receiver) = mpsc::unbounded_channel();
        let task = tokio::spawn(supervise(
            self.this.clone(),
            Start { shared: self.shared.clone(), view: view.clone(), pod, gone, leftover },
            receiver,
        ));
        (uid, Handle { source, view, inbox, task, gone, leftover, next: None })
    }

    /// A worker has ended: whatever waited for it begins.
    fn ended(&self, uid: &str) {
        let mut book = lock(&self.book);
        let next = book.workers.remove(uid).and_then(|handle| handle.next);
        if let Some((source, pod)) = next.filter(|_| !book.closed) {
            let (uid, handle) = self.spawn(source, pod, false, false);
            book.workers.insert(uid, handle);
        }
        drop(book);
        self.ended.notify_waiters();
    }

    /// Every pod that is desired or still going away.
    pub fn list(&self) -> Vec<PodView> {
        let book = lock(&self.book);
        let declared = book.workers.values().filter(|handle| !handle.leftover);
        declared
            .map(|handle| {
                let view = lock(&handle.view);
                PodView { pod: view.pod.clone(), source: handle.source, status: view.status.clone() }
            })
            .collect()
    }

    /// The file with the log of a container's current (or previous) instance.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn log_path(&self, namespace: &str, pod: &str, container: &str, previous: bool) -> Result<PathBuf, LogError> {
        let book = lock(&self.book);
        let mut views = book.workers.values().filter(|handle| !handle.leftover).map(|handle| lock(&handle.view));
        let view = views
            .find(|view| names::namespace(&view.pod) == namespace && names::name(&view.pod) == pod)
            .ok_or_else(|| LogError::NoPod(pod.to_owned()))?;
        let declared = view.pod.spec.iter().flat_map(berth_agent_core::qos::containers);
        if !declared.into_iter().any(|declared| declared.name == container) {
            return Err(LogError::NoContainer { pod: pod.to_owned(), container: container.to_owned() });
        }
        let begun = view.instances.get(container).into_iter().flatten().filter(|(_, begun)| *begun);
        let attempts: Vec<u32> = begun.map(|(attempt, _)| *attempt).collect();
        let attempt = match (previous, attempts.as_slice()) {
            (false, [latest, ..]) => *latest,
            (true, [_, before, ..]) => *before,
            (true, _) => return Err(LogError::NoPrevious { pod: pod.to_owned(), container: container.to_owned() }),
            (false, []) => {
                let reason = waiting_reason(&view.status, container);
                return Err(LogError::Waiting { pod: pod.to_owned(), container: container.to_owned(), reason });
            }
        };
        Ok(self.shared.log_folder(&view.pod).join(names::log_file(container, attempt)))
    }

    /// Stops every pod with its grace period and removes everything of it; returns when all are gone (standalone's
    /// Ctrl-C). The agent itself does not call this when it ends: containers outlive it.
    pub async fn stop_all(&self) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // Registered before the book is read, so that no end is missed.
            ended.as_mut().enable();
            {
                let mut book = lock(&self.book);
                for handle in book.workers.values_mut() {
                    handle.next = None;
                    if !handle.gone {
                        handle.gone = true;
                        let _ = handle.inbox.send(Message::Gone);
                    }
                }
                if book.workers.is_empty() {
                    break;
                }
            }
            ended.await;
        }
        if let Some(cgroups) = &self.shared.cgroups {
            cgroups.close();
        }
    }

    /// As [`Pods::stop_all`], with what the runtime and the disk hold of pods that nobody has declared: for a node that
    /// leaves its cluster.
    pub async fn clear(self: &Arc<Self>) {
        Arc::clone(self).sweep().await;
        self.stop_all().await;
    }

    /// Ends the workers and leaves the containers alone.
    pub async fn close(&self) {
        let workers = {
            let mut book = lock(&self.book);
            book.closed = true;
            std::mem::take(&mut book.workers)
        };
        let tasks = std::mem::take(&mut *lock(&self.tasks));
        for task in tasks.into_iter().chain(workers.into_values().map(|handle| handle.task)) {
            task.abort();
            let _ = task.await;
        }
    }
}

fn same_name(handle: &Handle, pod: &Pod) -> bool {
    let view = lock(&handle.view);
    names::name(&view.pod) == names::name(pod) && names::namespace(&view.pod) == names::namespace(pod)
}

fn waiting_reason(status: &PodStatus, container: &str) -> String {
    let lists = [&status.init_container_statuses, &status.container_statuses];
    let found = lists.into_iter().flatten().flatten().find(|status| status.name == container);
    let waiting = found.and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone());
    waiting.unwrap_or_else(|| "ContainerCreating".to_owned())
}

/// What a worker is made from, again after a panic.
struct Start {
    shared: Arc<Shared>,
    view: Arc<Mutex<View>>,
    pod: Arc<Pod>,
    gone: bool,
    leftover: bool,
}

/// Runs a worker; one that panics is replaced, and no other pod notices.
async fn supervise(pods: Weak<Pods>, start: Start, inbox: mpsc::UnboundedReceiver<Message>) {
    let uid = names::uid(&start.pod).to_owned();
    let (mut pod, mut gone) = (start.pod, start.gone);
    let inbox = Arc::new(tokio::sync::Mutex::new(inbox));
    loop {
        let worker = Worker::new(start.shared.clone(), start.view.clone(), pod.clone(), gone, start.leftover);
        let receiver = inbox.clone();
        let mut running = AbortOnDrop(tokio::spawn(async move { worker.run(&mut *receiver.lock().await).await }));
        match (&mut running.0).await {
            Ok(End::Closed) => return,
            Ok(End::Gone) => break,
            Err(error) => tracing::error!(uid, %error, "a pod worker ended unexpectedly; it is started anew"),
        }
        tokio::time::sleep(AFTER_PANIC).await;
        // The newest declaration that the lost worker had heard of.
        let Some(pods) = pods.upgrade() else { return };
        pod = lock(&start.view).pod.clone();
        gone = lock(&pods.book).workers.get(&uid).is_none_or(|handle| handle.gone);
    }
    if let Some(pods) = pods.upgrade() {
        pods.ended(&uid);
    }
}

/// A task that ends with its owner.
struct AbortOnDrop(JoinHandle<End>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
