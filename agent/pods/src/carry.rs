//! Carries out one step of a plan.

mod hooks;
mod image;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_agent_core::container::{self, Parts};
use berth_agent_core::env::{self, Found};
use berth_agent_core::security::ImageUser;
use berth_agent_core::users::{self, Users};
use berth_agent_core::{ImageState, SeenContainer, State, Step, hosts, names};
use berth_cri_proto::v1 as cri;
use berth_volumes::{ObjectError, SubPath, SubPathError, VolumeError};
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::EventKind::{Normal, Warning};
use crate::files;
use crate::shared::{Shared, now, read_host_file};

pub(crate) use hooks::{Hooked, PreStop};

/// By volume name: where it lies, and whether it is read-only.
pub(crate) type Volumes = BTreeMap<String, (PathBuf, bool)>;

/// Longest wait for an answer of the runtime, beyond what the call itself waits for.
const PATIENCE: Duration = Duration::from_secs(120);

/// A step, with what it needs.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) step: Step,
    /// The sandbox' addresses.
    pub(crate) ips: Vec<String>,
    /// The sandbox' attempt.
    pub(crate) attempt: u32,
    pub(crate) volumes: Arc<Volumes>,
    pub(crate) image_user: ImageUser,
    /// The instance that a removal is about.
    pub(crate) instance: Option<u32>,
    /// Cancelled when the instance that the step is about has ended.
    pub(crate) ended: CancellationToken,
    /// The preStop hook of the instance that is to be stopped.
    pub(crate) pre_stop: Option<PreStop>,
}

/// What a step brought about.
#[derive(Debug)]
pub(crate) enum Fact {
    Done,
    Sandbox(String),
    Volumes(Volumes),
    Image(ImageState, ImageUser),
    Container(Box<SeenContainer>),
}

/// Why a step failed.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) permanent: bool,
}

impl Trouble {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), permanent: false }
    }
}

/// A runtime's answer, in its words.
fn words(status: &Status) -> String {
    match status.code() {
        Code::Unknown | Code::Internal => status.message().to_owned(),
        code => format!("{}: {}", code.description(), status.message()),
    }
}

/// An answer that must come in time.
async fn call<T>(patience: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(patience, call).await.unwrap_or_else(|_| {
        Err(Status::deadline_exceeded(format!("the runtime did not answer within {} s", patience.as_secs())))
    })
}

/// What is already gone needs no removal.
fn gone_is_fine<T>(answer: Result<T, Status>) -> Result<(), Status> {
    match answer {
        Err(status) if status.code() != Code::NotFound => Err(status),
        _ => Ok(()),
    }
}

async fn blocking<T: Send + 'static, E: ToString + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Does it.
pub(crate) async fn carry_out(job: Job) -> Result<Fact, Trouble> {
    match job.step.clone() {
        Step::PrepareHost => prepare_host(job).await,
        Step::PrepareVolumes => prepare_volumes(job).await,
        Step::CreateSandbox { attempt } => create_sandbox(job, attempt).await,
        Step::PullImage { container, image } => image::ensure(&job, &container, &image).await,
        Step::CreateContainer { container, sandbox, image_ref, attempt, backoff } => {
            create_container(job, &container, sandbox, &image_ref, attempt, backoff).await
        }
        Step::StartContainer { container, id } => start_container(job, &container, id).await,
        Step::PostStart { container, id } => hooks::post_start(job, &container, id).await,
        Step::StopContainer { container, id, grace, message, .. } => {
            hooks::stop_container(job, &container, id, grace, message).await
        }
        Step::StopSandbox { id } => {
            let request = cri::StopPodSandboxRequest { pod_sandbox_id: id };
            let stopped = gone_is_fine(call(PATIENCE, job.shared.cri.stop_pod_sandbox(request)).await);
            stopped.map(|()| Fact::Done).map_err(|status| {
                let message = format!("error killing pod: failed to stop sandbox: {}", words(&status));
                job.shared.event(&job.pod, None, Warning, "FailedKillPod", message.clone());
                Trouble::new("FailedKillPod", message)
            })
        }
        Step::RemoveContainer { container, id } => {
            let request = cri::RemoveContainerRequest { container_id: id.clone() };
            let removed = gone_is_fine(call(PATIENCE, job.shared.cri.remove_container(request)).await);
            removed.map_err(|status| Trouble::new("FailedRemove", words(&status)))?;
            if let Some(attempt) = job.instance {
                let cleared = blocking(move || {
                    files::clear_container(&job.shared, &job.pod, &container, &id, attempt);
                    Ok::<_, String>(())
                });
                cleared.await.map_err(|error| Trouble::new("FailedRemove", error))?;
            }
            Ok(Fact::Done)
        }
        Step::RemoveSandbox { id } => {
            let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id };
            let removed = gone_is_fine(call(PATIENCE, job.shared.cri.remove_pod_sandbox(request)).await);
            removed.map(|()| Fact::Done).map_err(|status| Trouble::new("FailedRemove", words(&status)))
        }
        Step::ClearVolumes => {
            let cleared = blocking(move || {
                let uid = names::uid(&job.pod);
                berth_volumes::teardown(uid, &job.shared.config.root_dir)
                    .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
            });
            cleared.await.map(|()| Fact::Done).map_err(|error| Trouble::new("FailedUnMount", error))
        }
        Step::ClearCgroup => {
            let cleared = blocking(move || match &job.shared.cgroups {
                // A leftover's class is not known.
                Some(cgroups) if job.pod.spec.as_ref().is_some_and(|spec| !spec.containers.is_empty()) => {
                    cgroups.remove(&job.pod)
                }
                Some(cgroups) => cgroups.remove_uid(names::uid(&job.pod)),
                None => Ok(()),
            });
            cleared.await.map(|()| Fact::Done).map_err(|error| Trouble::new("FailedCgroup", error))
        }
        Step::ClearFiles => {
            let cleared = blocking(move || files::clear(&job.shared, &job.pod));
            cleared.await.map(|()| Fact::Done).map_err(|error| Trouble::new("FailedRemove", error))
        }
        Step::PreStop { .. } | Step::Abandon(_) | Step::ReportGone | Step::Wait { .. } | Step::Refuse { .. } => {
            Ok(Fact::Done)
        }
    }
}

async fn prepare_host(job: Job) -> Result<Fact, Trouble> {
    let prepared = blocking(move || {
        files::prepare(&job.shared, &job.pod).map_err(|error| error.to_string())?;
        match &job.shared.cgroups {
            Some(cgroups) => cgroups.create(&job.pod, &job.shared.policy()).map_err(|error| error.to_string()),
            None => Ok(()),
        }
    });
    prepared.await.map(|()| Fact::Done).map_err(|error| Trouble::new("FailedCreatePodContainer", error))
}

async fn prepare_volumes(job: Job) -> Result<Fact, Trouble> {
    let facts = job.shared.volume_facts();
    let root = &job.shared.config.root_dir;
    match berth_volumes::prepare(&job.pod, job.shared.objects.as_ref(), root, &facts).await {
        Ok(paths) => Ok(Fact::Volumes(paths.into_iter().map(|(name, at)| (name, (at.path, at.read_only))).collect())),
        Err(error) => Err(volume_trouble(&job, &error)),
    }
}

fn volume_trouble(job: &Job, error: &VolumeError) -> Trouble {
    job.shared.event(&job.pod, None, Warning, "FailedMount", error.to_string());
    let reason = if error.is_waiting() { "FailedMount" } else { "CreateContainerConfigError" };
    Trouble { reason, message: error.to_string(), permanent: !error.is_waiting() }
}

async fn create_sandbox(job: Job, attempt: u32) -> Result<Fact, Trouble> {
    if attempt > 0 {
        let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
        job.shared.event(&job.pod, None, Normal, "SandboxChanged", message);
    }
    let failed = |message: String| {
        let message = format!("Failed to create pod sandbox: {message}");
        job.shared.event(&job.pod, None, Warning, "FailedCreatePodSandBox", message.clone());
        Trouble::new("FailedCreatePodSandBox", message)
    };
    let handler = runtime_handler(&job).await.map_err(&failed)?;
    if users::wanted(job.pod.spec.as_ref()) {
        check_users(&job, &handler).await.map_err(&failed)?;
    }
    let users = own_users(&job).await.map_err(&failed)?;
    let config = job.shared.sandbox_config(&job.pod, attempt, users).map_err(&failed)?;
    let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: handler };
    let made = call(2 * PATIENCE, job.shared.cri.run_pod_sandbox(request)).await;
    made.map(|response| Fact::Sandbox(response.pod_sandbox_id)).map_err(|status| failed(words(&status)))
}

/// Which of the runtime's handlers the pod's RuntimeClass names; empty for the default one
/// (`kubernetes@v1.37.2:pkg/kubelet/runtimeclass/runtimeclass_manager.go#LookupRuntimeHandler`).
async fn runtime_handler(job: &Job) -> Result<String, String> {
    let name = job.pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_deref()).unwrap_or_default();
    if name.is_empty() {
        return Ok(String::new());
    }
    match job.shared.objects.runtime_class(name).await {
        Ok(class) => Ok(class.handler.clone()),
        Err(error @ ObjectError::NotFound { .. }) => Err(error.to_string()),
        Err(error) => Err(format!("failed to lookup RuntimeClass {name}: {error}")),
    }
}

/// Whether the runtime can give pods of a handler users of their own.
async fn check_users(job: &Job, name: &str) -> Result<(), String> {
    let status = call(PATIENCE, job.shared.cri.status(cri::StatusRequest::default())).await;
    let handlers = status.map_err(|status| words(&status))?.runtime_handlers;
    let handler = handlers.iter().find(|handler| handler.name == name);
    if handler.and_then(|handler| handler.features).is_some_and(|features| features.user_namespaces) {
        return Ok(());
    }
    Err(match name {
        "" => "hostUsers: false: the container runtime has no user namespaces for pods on this node".to_owned(),
        name => format!("hostUsers: false: the handler {name:?} has no user namespaces for pods on this node"),
    })
}

/// The pod's own users, if it asks for such.
async fn own_users(job: &Job) -> Result<Option<Users>, String> {
    let (shared, pod) = (job.shared.clone(), job.pod.clone());
    blocking(move || crate::users::of(&shared, &pod)).await
}

pub(crate) fn declared<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    berth_agent_core::qos::containers(pod.spec.as_ref()?).find(|container| container.name == name)
}

async fn create_container(
    job: Job,
    name: &str,
    sandbox: String,
    image_ref: &str,
    attempt: u32,
    backoff: i64,
) -> Result<Fact, Trouble> {
    let failed = |reason: &'static str, message: String| {
        job.shared.event(&job.pod, Some(name), Warning, "Failed", format!("Error: {message}"));
        Trouble::new(reason, message)
    };
    let config_error = |message: String| failed("CreateContainerConfigError", message);
    let container = declared(&job.pod, name).ok_or_else(|| config_error(format!("no container {name:?}")))?;
    let found = objects(&job, container).await.map_err(|error| config_error(error.to_string()))?;
    let facts = job.shared.env_facts(job.ips.clone());
    let env = env::variables(&job.pod, container, &found, &facts).map_err(|error| config_error(error.to_string()))?;

    let parts = container::sub_paths(container, &env).map_err(config_error)?;
    let sub_paths = sub_paths(&job, name, parts).await.map_err(config_error)?;
    let (shared, pod, ips, of) = (job.shared.clone(), job.pod.clone(), job.ips.clone(), name.to_owned());
    let made = blocking(move || {
        let termination = files::prepare_container(&shared, &pod, &of, attempt)?;
        let hosts = files::write_hosts(&shared, &pod, &hosts_content(&shared, &pod, &ips))?;
        Ok::<_, files::FileError>((termination, hosts))
    });
    let (termination_file, hosts_file) = made.await.map_err(config_error)?;
    let policy = job.shared.policy();
    let users = own_users(&job).await.map_err(config_error)?;
    let parts = Parts {
        attempt,
        backoff,
        image_ref,
        image_user: &job.image_user,
        env,
        volumes: &job.volumes,
        sub_paths: &sub_paths,
        hosts_file: Some(&hosts_file),
        termination_file: &termination_file,
        policy: &policy,
        seccomp_default: job.shared.config.seccomp_default,
        users,
    };
    let config = container::config(&job.pod, container, &parts).map_err(config_error)?;
    let sandbox_config = job.shared.sandbox_config(&job.pod, job.attempt, users).map_err(config_error)?;
    let log_path = job.shared.log_folder(&job.pod).join(&config.log_path).to_string_lossy().into_owned();
    let request = cri::CreateContainerRequest {
        pod_sandbox_id: sandbox.clone(),
        config: Some(config),
        sandbox_config: Some(sandbox_config),
    };
    let made = call(PATIENCE, job.shared.cri.create_container(request)).await;
    let id = made.map_err(|status| failed("CreateContainerError", words(&status)))?.container_id;
    job.shared.event(&job.pod, Some(name), Normal, "Created", "Container created".to_owned());
    Ok(Fact::Container(Box::new(SeenContainer {
        id,
        name: name.to_owned(),
        sandbox,
        attempt,
        created: now(),
        state: State::Created,
        backoff,
        image: container.image.clone().unwrap_or_default(),
        image_ref: image_ref.to_owned(),
        user: None,
        log_path,
    })))
}

/// Mounts the parts of volumes that a container asks for: by index in `volumeMounts`, where they lie.
async fn sub_paths(
    job: &Job,
    container: &str,
    parts: Vec<(usize, String, String)>,
) -> Result<BTreeMap<usize, PathBuf>, String> {
    if parts.is_empty() {
        return Ok(BTreeMap::new());
    }
    let (shared, pod, volumes, container) =
        (job.shared.clone(), job.pod.clone(), job.volumes.clone(), container.to_owned());
    blocking(move || {
        let mut out = BTreeMap::new();
        for (index, volume, path) in parts {
            // A volume that is not there is told where the mounts are made.
            let Some((source, _)) = volumes.get(&volume) else { continue };
            let sub = SubPath { uid: names::uid(&pod), volume: &volume, container: &container, index, path: &path };
            out.insert(index, berth_volumes::bind_sub_path(&shared.config.root_dir, source, sub)?);
        }
        Ok::<_, SubPathError>(out)
    })
    .await
}

fn hosts_content(shared: &Shared, pod: &Pod, ips: &[String]) -> String {
    let spec = pod.spec.as_ref();
    let aliases = spec.and_then(|spec| spec.host_aliases.as_deref()).unwrap_or_default();
    if spec.and_then(|spec| spec.host_network) == Some(true) {
        return hosts::content_host_network(&read_host_file("/etc/hosts".as_ref()), aliases);
    }
    let (host, domain) = hosts::hostname(pod, &shared.config.cluster_domain);
    hosts::content(ips, &host, &domain, aliases)
}

/// The objects that a container's environment refers to. What is missing is left out: the core knows what is optional.
async fn objects(job: &Job, container: &Container) -> Result<Found, ObjectError> {
    let namespace = names::namespace(&job.pod);
    let objects = &job.shared.objects;
    let references = env::references(container);
    let mut found = Found::default();
    for name in references.config_maps {
        match objects.config_map(namespace, &name).await {
            Ok(map) => drop(found.config_maps.insert(name, map)),
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error),
        }
    }
    for name in references.secrets {
        match objects.secret(namespace, &name).await {
            Ok(secret) => drop(found.secrets.insert(name, secret)),
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error),
        }
    }
    // The API server's own service is seen from everywhere.
    let mut namespaces = vec!["default"];
    if namespace != "default" {
        namespaces.push(namespace);
    }
    for namespace in namespaces {
        found.services.extend(objects.services(namespace).await?);
    }
    Ok(found)
}

async fn start_container(job: Job, name: &str, id: String) -> Result<Fact, Trouble> {
    let started =
        call(PATIENCE, job.shared.cri.start_container(cri::StartContainerRequest { container_id: id.clone() })).await;
    if let Err(status) = started {
        let message = words(&status);
        job.shared.event(&job.pod, Some(name), Warning, "Failed", format!("Error: {message}"));
        return Err(Trouble::new("RunContainerError", message));
    }
    job.shared.event(&job.pod, Some(name), Normal, "Started", "Container started".to_owned());
    if let Some(attempt) = job.instance {
        let (shared, pod, container) = (job.shared.clone(), job.pod.clone(), name.to_owned());
        // Nobody waits for the link; the log itself is there.
        drop(tokio::task::spawn_blocking(move || files::link_log(&shared, &pod, &container, &id, attempt)));
    }
    Ok(Fact::Done)
}
