//! A scripted runtime in memory, and a publisher that remembers.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use berth_cri_proto::v1 as cri;
use berth_pods::{Calls, Config, Cri, Event, NodeFacts, Pods, Publisher, Source};
use berth_volumes::NoCluster;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{Notify, broadcast};
use tonic::Status;

#[derive(Debug, Default)]
struct World {
    next: u32,
    sandboxes: BTreeMap<String, cri::PodSandboxStatus>,
    /// (sandbox, status)
    containers: BTreeMap<String, (String, cri::ContainerStatus)>,
    images: BTreeMap<String, cri::Image>,
    /// Every change asked for, in order.
    log: Vec<String>,
    /// By call: what it answers next, instead of doing its work.
    failures: HashMap<&'static str, Vec<Status>>,
    /// Containers that ignore their stop signal until told.
    stubborn: bool,
    /// By command: the code that it exits with; `None` is never. Commands that nobody knows succeed.
    commands: HashMap<String, Option<i32>>,
    /// Whether it can give pods users of their own.
    user_namespaces: bool,
    /// The namespaces of every sandbox and container asked for, in order.
    namespaces: Vec<cri::NamespaceOption>,
}

#[derive(Debug)]
pub(crate) struct Runtime {
    world: Mutex<World>,
    events: broadcast::Sender<cri::ContainerEventResponse>,
    killed: Notify,
}

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos()).expect("before 2262")
}

impl Runtime {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { world: Mutex::default(), events: broadcast::Sender::new(1024), killed: Notify::new() })
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.world.lock().expect("world").log.clone()
    }

    /// How often a call was made whose entry begins so.
    pub(crate) fn count(&self, prefix: &str) -> usize {
        self.log().iter().filter(|entry| entry.starts_with(prefix)).count()
    }

    pub(crate) fn fail(&self, call: &'static str, status: Status) {
        self.world.lock().expect("world").failures.entry(call).or_default().push(status);
    }

    /// What the command `name`, or `ID name` for one container, exits with from now on; `None`: not before its
    /// container does.
    pub(crate) fn command(&self, name: &str, code: Option<i32>) {
        self.world.lock().expect("world").commands.insert(name.to_owned(), code);
    }

    pub(crate) fn has_user_namespaces(&self) {
        self.world.lock().expect("world").user_namespaces = true;
    }

    pub(crate) fn namespaces(&self) -> Vec<cri::NamespaceOption> {
        self.world.lock().expect("world").namespaces.clone()
    }

    /// The mounts of every container.
    pub(crate) fn mounts(&self) -> Vec<cri::Mount> {
        self.world.lock().expect("world").containers.values().flat_map(|(_, status)| status.mounts.clone()).collect()
    }

    pub(crate) fn stubborn(&self) {
        self.world.lock().expect("world").stubborn = true;
    }

    pub(crate) fn is_empty(&self) -> bool {
        let world = self.world.lock().expect("world");
        world.sandboxes.is_empty() && world.containers.is_empty()
    }

    pub(crate) fn running(&self) -> Vec<String> {
        let world = self.world.lock().expect("world");
        let running = world.containers.values().filter(|(_, c)| c.state() == cri::ContainerState::ContainerRunning);
        running.map(|(_, c)| c.id.clone()).collect()
    }

    /// A container ends by itself.
    pub(crate) fn exit(&self, id: &str, code: i32) {
        self.end(id, code, true);
    }

    /// A container ends and nobody is told.
    pub(crate) fn exit_silently(&self, id: &str, code: i32) {
        self.end(id, code, false);
    }

    /// The sandbox and all in it die, as when its shim is killed.
    pub(crate) fn lose_sandbox(&self) {
        let ids: Vec<String> = {
            let mut world = self.world.lock().expect("world");
            for sandbox in world.sandboxes.values_mut() {
                sandbox.state = cri::PodSandboxState::SandboxNotready.into();
            }
            world.containers.keys().cloned().collect()
        };
        for id in ids {
            self.end(&id, 137, true);
        }
    }

    fn end(&self, id: &str, code: i32, tell: bool) {
        let event = {
            let mut world = self.world.lock().expect("world");
            let Some((sandbox, status)) = world.containers.get_mut(id) else { return };
            if status.state() == cri::ContainerState::ContainerExited {
                return;
            }
            status.state = cri::ContainerState::ContainerExited.into();
            status.exit_code = code;
            status.finished_at = now();
            let (sandbox, status) = (sandbox.clone(), status.clone());
            cri::ContainerEventResponse {
                container_id: id.to_owned(),
                container_event_type: cri::ContainerEventType::ContainerStoppedEvent.into(),
                created_at: now(),
                pod_sandbox_status: world.sandboxes.get(&sandbox).cloned(),
                containers_statuses: vec![status],
            }
        };
        self.killed.notify_waiters();
        if tell {
            let _ = self.events.send(event);
        }
    }

    fn enter(&self, call: &'static str, entry: &str) -> Result<std::sync::MutexGuard<'_, World>, Status> {
        let mut world = self.world.lock().expect("world");
        world.log.push(format!("{call} {entry}"));
        let failure = world.failures.get_mut(call).filter(|list| !list.is_empty()).map(|list| list.remove(0));
        failure.map_or(Ok(world), Err)
    }
}

fn selected(labels: &HashMap<String, String>, selector: &HashMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[async_trait]
impl Calls for Runtime {
    async fn version(&self, _: cri::VersionRequest) -> Result<cri::VersionResponse, Status> {
        Ok(cri::VersionResponse { runtime_name: "fake".into(), ..Default::default() })
    }

    async fn status(&self, _: cri::StatusRequest) -> Result<cri::StatusResponse, Status> {
        let user_namespaces = self.world.lock().expect("world").user_namespaces;
        let features = cri::RuntimeHandlerFeatures { user_namespaces, ..Default::default() };
        let handler = cri::RuntimeHandler { name: String::new(), features: Some(features) };
        Ok(cri::StatusResponse { runtime_handlers: vec![handler], ..Default::default() })
    }

    async fn runtime_config(&self, _: cri::RuntimeConfigRequest) -> Result<cri::RuntimeConfigResponse, Status> {
        Ok(cri::RuntimeConfigResponse::default())
    }

    async fn run_pod_sandbox(&self, request: cri::RunPodSandboxRequest) -> Result<cri::RunPodSandboxResponse, Status> {
        let config = request.config.expect("a config");
        let metadata = config.metadata.clone().expect("metadata");
        let mut world = self.enter("run_pod_sandbox", &format!("{} {}", metadata.name, metadata.attempt))?;
        world.next += 1;
        let security = config.linux.and_then(|linux| linux.security_context);
        world.namespaces.extend(security.and_then(|security| security.namespace_options));
        let id = format!("s{}", world.next);
        let status = cri::PodSandboxStatus {
            id: id.clone(),
            metadata: Some(metadata),
            state: cri::PodSandboxState::SandboxReady.into(),
            created_at: now(),
            network: Some(cri::PodSandboxNetworkStatus {
                ip: format!("10.9.0.{}", world.next),
                additional_ips: vec![],
            }),
            labels: config.labels,
            ..Default::default()
        };
        world.sandboxes.insert(id.clone(), status);
        Ok(cri::RunPodSandboxResponse { pod_sandbox_id: id })
    }

    async fn stop_pod_sandbox(
        &self,
        request: cri::StopPodSandboxRequest,
    ) -> Result<cri::StopPodSandboxResponse, Status> {
        let id = request.pod_sandbox_id;
        let inside: Vec<String> = {
            let mut world = self.enter("stop_pod_sandbox", &id)?;
            if let Some(sandbox) = world.sandboxes.get_mut(&id) {
                sandbox.state = cri::PodSandboxState::SandboxNotready.into();
            }
            world.containers.iter().filter(|(_, (sandbox, _))| *sandbox == id).map(|(id, _)| id.clone()).collect()
        };
        for container in inside {
            self.end(&container, 137, true);
        }
        Ok(cri::StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(
        &self,
        request: cri::RemovePodSandboxRequest,
    ) -> Result<cri::RemovePodSandboxResponse, Status> {
        let id = request.pod_sandbox_id;
        let mut world = self.enter("remove_pod_sandbox", &id)?;
        world.sandboxes.remove(&id);
        world.containers.retain(|_, (sandbox, _)| *sandbox != id);
        Ok(cri::RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(
        &self,
        request: cri::PodSandboxStatusRequest,
    ) -> Result<cri::PodSandboxStatusResponse, Status> {
        let world = self.world.lock().expect("world");
        let status =
            world.sandboxes.get(&request.pod_sandbox_id).cloned().ok_or_else(|| Status::not_found("sandbox"))?;
        Ok(cri::PodSandboxStatusResponse { status: Some(status), ..Default::default() })
    }

    async fn list_pod_sandbox(
        &self,
        request: cri::ListPodSandboxRequest,
    ) -> Result<cri::ListPodSandboxResponse, Status> {
        let selector = request.filter.unwrap_or_default().label_selector;
        let world = self.world.lock().expect("world");
        let found = world.sandboxes.values().filter(|status| selected(&status.labels, &selector));
        let items = found.map(|status| cri::PodSandbox {
            id: status.id.clone(),
            metadata: status.metadata.clone(),
            state: status.state,
            created_at: status.created_at,
            labels: status.labels.clone(),
            ..Default::default()
        });
        Ok(cri::ListPodSandboxResponse { items: items.collect() })
    }

    async fn create_container(
        &self,
        request: cri::CreateContainerRequest,
    ) -> Result<cri::CreateContainerResponse, Status> {
        let config = request.config.expect("a config");
        let metadata = config.metadata.clone().expect("metadata");
        let mut world = self.enter("create_container", &format!("{} {}", metadata.name, metadata.attempt))?;
        world.next += 1;
        let security = config.linux.and_then(|linux| linux.security_context);
        world.namespaces.extend(security.and_then(|security| security.namespace_options));
        let id = format!("c{}", world.next);
        let status = cri::ContainerStatus {
            id: id.clone(),
            metadata: Some(metadata),
            state: cri::ContainerState::ContainerCreated.into(),
            created_at: now(),
            image_ref: config.image.as_ref().map(|image| image.image.clone()).unwrap_or_default(),
            image: config.image,
            labels: config.labels,
            annotations: config.annotations,
            mounts: config.mounts,
            log_path: config.log_path,
            ..Default::default()
        };
        world.containers.insert(id.clone(), (request.pod_sandbox_id, status));
        Ok(cri::CreateContainerResponse { container_id: id })
    }

    async fn start_container(
        &self,
        request: cri::StartContainerRequest,
    ) -> Result<cri::StartContainerResponse, Status> {
        let mut world = self.enter("start_container", &request.container_id)?;
        let (_, status) =
            world.containers.get_mut(&request.container_id).ok_or_else(|| Status::not_found("container"))?;
        status.state = cri::ContainerState::ContainerRunning.into();
        status.started_at = now();
        Ok(cri::StartContainerResponse {})
    }

    async fn stop_container(&self, request: cri::StopContainerRequest) -> Result<cri::StopContainerResponse, Status> {
        let stubborn = {
            let world = self.enter("stop_container", &format!("{} {}", request.container_id, request.timeout))?;
            world.stubborn
        };
        if stubborn {
            loop {
                let killed = self.killed.notified();
                let grace = Duration::from_secs(request.timeout.unsigned_abs());
                let ended = tokio::time::timeout(grace, killed).await.is_err();
                if ended || !self.running().contains(&request.container_id) {
                    break;
                }
            }
        }
        self.end(&request.container_id, if stubborn { 137 } else { 143 }, true);
        Ok(cri::StopContainerResponse {})
    }

    async fn exec_sync(&self, request: cri::ExecSyncRequest) -> Result<cri::ExecSyncResponse, Status> {
        let name = request.cmd.first().cloned().unwrap_or_default();
        let code = {
            let world = self.enter("exec_sync", &format!("{} {name}", request.container_id))?;
            let here = format!("{} {name}", request.container_id);
            world.commands.get(&here).or_else(|| world.commands.get(&name)).copied().unwrap_or(Some(0))
        };
        let Some(exit_code) = code else {
            loop {
                let ended = self.killed.notified();
                if !self.running().contains(&request.container_id) {
                    return Err(Status::unavailable("the container has ended"));
                }
                ended.await;
            }
        };
        Ok(cri::ExecSyncResponse { stdout: format!("{name} says {exit_code}").into(), stderr: Vec::new(), exit_code })
    }

    async fn remove_container(
        &self,
        request: cri::RemoveContainerRequest,
    ) -> Result<cri::RemoveContainerResponse, Status> {
        let mut world = self.enter("remove_container", &request.container_id)?;
        world.containers.remove(&request.container_id);
        Ok(cri::RemoveContainerResponse {})
    }

    async fn list_containers(
        &self,
        request: cri::ListContainersRequest,
    ) -> Result<cri::ListContainersResponse, Status> {
        let filter = request.filter.unwrap_or_default();
        let world = self.world.lock().expect("world");
        let found = world.containers.values().filter(|(_, status)| {
            selected(&status.labels, &filter.label_selector) && (filter.id.is_empty() || filter.id == status.id)
        });
        let containers = found.map(|(sandbox, status)| cri::Container {
            id: status.id.clone(),
            pod_sandbox_id: sandbox.clone(),
            metadata: status.metadata.clone(),
            state: status.state,
            labels: status.labels.clone(),
            annotations: status.annotations.clone(),
            ..Default::default()
        });
        Ok(cri::ListContainersResponse { containers: containers.collect() })
    }

    async fn container_status(
        &self,
        request: cri::ContainerStatusRequest,
    ) -> Result<cri::ContainerStatusResponse, Status> {
        let world = self.world.lock().expect("world");
        let found = world.containers.get(&request.container_id).ok_or_else(|| Status::not_found("container"))?;
        Ok(cri::ContainerStatusResponse { status: Some(found.1.clone()), ..Default::default() })
    }

    async fn image_status(&self, request: cri::ImageStatusRequest) -> Result<cri::ImageStatusResponse, Status> {
        let image = request.image.expect("an image").image;
        let world = self.world.lock().expect("world");
        Ok(cri::ImageStatusResponse { image: world.images.get(&image).cloned(), ..Default::default() })
    }

    async fn pull_image(&self, request: cri::PullImageRequest) -> Result<cri::PullImageResponse, Status> {
        let image = request.image.expect("an image").image;
        let mut world = self.enter("pull_image", &image)?;
        let id = format!("sha256:{image}");
        let made = cri::Image { id: id.clone(), size: 1, ..Default::default() };
        world.images.insert(id.clone(), made.clone());
        world.images.insert(image, made);
        Ok(cri::PullImageResponse { image_ref: id })
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<cri::ContainerEventResponse, Status>>, Status> {
        let receiver = self.events.subscribe();
        let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
            loop {
                match receiver.recv().await {
                    Ok(event) => return Some((Ok(event), receiver)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        Ok(stream.boxed())
    }
}

/// What was published.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) statuses: Mutex<Vec<(String, PodStatus)>>,
    pub(crate) events: Mutex<Vec<(String, Event)>>,
    pub(crate) deleted: Mutex<Vec<String>>,
}

fn name(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}

impl Publisher for Told {
    fn publish(&self, pod: &Pod, status: PodStatus) {
        self.statuses.lock().expect("statuses").push((name(pod), status));
    }

    fn deleted(&self, pod: &Pod) {
        self.deleted.lock().expect("deleted").push(name(pod));
    }

    fn event(&self, pod: &Pod, event: Event) {
        self.events.lock().expect("events").push((name(pod), event));
    }
}

impl Told {
    pub(crate) fn last(&self, pod: &str) -> PodStatus {
        let statuses = self.statuses.lock().expect("statuses");
        statuses.iter().rev().find(|(name, _)| name == pod).map(|(_, status)| status.clone()).unwrap_or_default()
    }

    pub(crate) fn is_ready(&self, pod: &str) -> bool {
        let conditions = self.last(pod).conditions.unwrap_or_default();
        conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    }

    /// Whether there is an event with this reason and message.
    pub(crate) fn has_event(&self, reason: &str, message: &str) -> bool {
        let events = self.events.lock().expect("events");
        events.iter().any(|(_, event)| event.reason == reason && event.message == message)
    }

    pub(crate) fn has_event_about(&self, reason: &str, part: &str) -> bool {
        let events = self.events.lock().expect("events");
        events.iter().any(|(_, event)| event.reason == reason && event.message.contains(part))
    }

    pub(crate) fn reasons(&self) -> Vec<&'static str> {
        self.events.lock().expect("events").iter().map(|(_, event)| event.reason).collect()
    }

    pub(crate) fn is_deleted(&self, pod: &str) -> bool {
        self.deleted.lock().expect("deleted").iter().any(|name| name == pod)
    }

    pub(crate) fn waiting(&self, pod: &str) -> Option<(String, String)> {
        let status = self.last(pod);
        let waiting = status.container_statuses?.first()?.state.clone()?.waiting?;
        Some((waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default()))
    }
}

/// An agent's pods over a runtime, in folders of their own.
pub(crate) struct Node {
    pub(crate) pods: Arc<Pods>,
    pub(crate) told: Arc<Told>,
}

pub(crate) fn config(folder: &Path) -> Config {
    Config {
        node_name: "node".into(),
        root_dir: folder.join("root"),
        pod_logs_dir: folder.join("logs"),
        container_logs_dir: Some(folder.join("links")),
        cgroups_per_qos: false,
        resolv_conf: None,
        ..Config::default()
    }
}

impl Node {
    pub(crate) async fn start(runtime: &Arc<Runtime>, config: Config) -> Self {
        let told = Arc::new(Told::default());
        let cri = Cri::Local(runtime.clone());
        let pods = Pods::start(config, cri, Arc::new(NoCluster::new()), told.clone(), &[Source::Api]).await;
        let pods = pods.expect("pods");
        pods.set_node(NodeFacts { ips: vec!["192.0.2.1".into()], ..NodeFacts::default() });
        Self { pods, told }
    }

    pub(crate) fn set(&self, spec: serde_json::Value) {
        self.pods.set(Source::Api, pod(spec));
    }
}

/// A pod named `web` with UID `u1`, from its spec.
#[expect(clippy::needless_pass_by_value, reason = "json! values read better by value")]
pub(crate) fn pod(spec: serde_json::Value) -> Pod {
    let metadata = serde_json::json!({"name": "web", "namespace": "n", "uid": "u1", "generation": 1});
    serde_json::from_value(serde_json::json!({"metadata": metadata, "spec": spec})).expect("a pod")
}

/// Waits until something is so; the limit only ends a test that has failed.
pub(crate) async fn until(what: &str, so: impl Fn() -> bool) {
    for _ in 0..6000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never happened: {what}");
}
