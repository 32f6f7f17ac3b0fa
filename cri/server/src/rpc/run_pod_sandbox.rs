//! RunPodSandbox: namespaces, network, shared memory and the shim that holds them.
//!
//! The record comes first, then everything at once; when any of it fails, all of it is taken down again. A repeated
//! call for the same pod and attempt gets the sandbox that is there.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;

use berth_cri_core::compile::{self, NamespaceScope};
use berth_cri_core::host::CgroupDriver;
use berth_cri_core::names;
use berth_cri_core::state::SandboxState;
use berth_cri_proto::v1::{ContainerEventType, RunPodSandboxRequest, RunPodSandboxResponse};
use berth_plan::message::Request;
use berth_sys::netns::NetNs;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::{invalid, required};
use crate::records::{Encoded, Phase, SandboxRecord};
use crate::runtime::{Runtime, new_id};
use crate::sandbox::{self, Sandbox};
use crate::shim::{self, News, Shim};
use crate::tasks::blocking;
use crate::{descriptors, exits, files, teardown};

pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: RunPodSandboxRequest,
) -> Result<RunPodSandboxResponse, Status> {
    let other = runtime.handlers.choose(&request.runtime_handler)?;
    let config = required(request.config, "config")?;
    let mut plan = compile::sandbox(&config, runtime.config.cgroup_driver).map_err(|error| invalid(&error))?;
    if let Some(other) = &other
        && plan.user.is_some()
    {
        return Err(Status::failed_precondition(format!(
            "handler {:?} can't give pods user namespaces (hostUsers: false)",
            other.handler
        )));
    }
    if plan.user.is_some() {
        let work = Arc::clone(runtime);
        let tried = blocking(move || work.user_namespaces.supported(&work.shim, &work.places.root).clone()).await?;
        tried.map_err(|reason| {
            Status::failed_precondition(format!(
                "this node can't give pods user namespaces (hostUsers: false): {reason}"
            ))
        })?;
    }
    let name = names::sandbox(config.metadata.as_ref().unwrap_or(&Default::default()));
    // A repeated call waits for the first one here, and finds what it made.
    let _operation = runtime.operations.begin(&format!("sandbox {name}"), "run").await;
    while let Some(existing) = existing(runtime, &name) {
        if runtime.operations.is_ending(&existing.id) {
            drop(runtime.operations.begin(&existing.id, "wait").await);
            continue;
        }
        if existing.is_ready() && existing.config == config {
            return Ok(RunPodSandboxResponse { pod_sandbox_id: existing.id.clone() });
        }
        return Err(Status::already_exists(format!(
            "failed to reserve sandbox name {name:?}: name {name:?} is reserved for {:?}",
            existing.id
        )));
    }
    let id = new_id()?;
    if plan.cgroup_parent.is_empty() {
        match runtime.config.cgroup_driver {
            CgroupDriver::Cgroupfs => plan.cgroup_parent = runtime.own_cgroup_parent(&id),
            CgroupDriver::Systemd => plan.put_into(&runtime.own_slice(&id)?),
        }
    }
    let missing = runtime.cgroups.missing(&plan.cgroup_parent);
    let record = SandboxRecord {
        id: id.clone(),
        phase: Phase::Creating,
        config: Encoded(config),
        handler: request.runtime_handler,
        runtime: other,
        created_at: berth_sys::process::now(),
        plan,
        made_cgroups: missing.map_err(|error| Status::invalid_argument(format!("linux.cgroup_parent: {error}")))?,
        resources: None,
    };
    let sandbox = run(runtime, record).await?;
    tracing::info!(sandbox = sandbox.id, "sandbox runs");
    for kind in [ContainerEventType::ContainerCreatedEvent, ContainerEventType::ContainerStartedEvent] {
        runtime.tell(kind, &id, &id);
    }
    Ok(RunPodSandboxResponse { pod_sandbox_id: id })
}

fn existing(runtime: &Runtime, name: &str) -> Option<Arc<Sandbox>> {
    let world = runtime.world();
    world.sandbox_names.get(name).and_then(|id| world.sandboxes.get(id)).cloned()
}

/// What a running sandbox consists of.
struct Made {
    shim: Arc<Shim>,
    news: mpsc::UnboundedReceiver<News>,
    ips: Vec<String>,
}

async fn run(runtime: &Arc<Runtime>, record: SandboxRecord) -> Result<Arc<Sandbox>, Status> {
    let (work, begun) = (Arc::clone(runtime), record.clone());
    let folder = blocking(move || make_folder(&work, begun)).await?;
    if let Err(error) = folder {
        return Err(unwound(runtime, record, io_status("the sandbox's folder")(error)).await);
    }
    match make(runtime, &record).await {
        Err(status) => Err(unwound(runtime, record, status).await),
        Ok(made) => {
            let state = SandboxState::Ready { shim: made.shim.pid, shim_started: made.shim.started, ips: made.ips };
            let live = SandboxRecord { phase: Phase::Live(state.clone()), ..record.clone() };
            let work = Arc::clone(runtime);
            if let Err(error) = blocking(move || sandbox::write(&work, live)).await? {
                made.shim.kill();
                return Err(unwound(runtime, record, io_status("the sandbox's record")(error)).await);
            }
            let sandbox = Arc::new(Sandbox::new(record, state, Some(made.shim)));
            runtime.world().insert_sandbox(Arc::clone(&sandbox));
            tokio::spawn(exits::watch(Arc::downgrade(runtime), Arc::downgrade(&sandbox), made.news));
            Ok(sandbox)
        }
    }
}

fn io_status(what: &'static str) -> impl Fn(io::Error) -> Status {
    move |error| Status::internal(format!("{what}: {error}"))
}

fn make_folder(runtime: &Runtime, record: SandboxRecord) -> io::Result<()> {
    let folder = runtime.places.sandbox(&record.id);
    let plans = runtime.places.plans(&record.id);
    berth_effect::run("sandbox-folder-create", || {
        // Containers' users reach what is mounted from here by descriptors, so nobody else may enter.
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        fs::DirBuilder::new().mode(0o700).create(plans)
    })?;
    sandbox::write(runtime, record)
}

/// Everything at once: the shim is started and the files are made while the plugins work.
async fn make(runtime: &Arc<Runtime>, record: &SandboxRecord) -> Result<Made, Status> {
    let (namespace_sender, namespace) = oneshot::channel();
    let (holder_sender, holder) = oneshot::channel();
    // All three are waited for, also when one fails: nothing may be made any more while it is taken down.
    let (shim, ips, files) = tokio::join!(
        start_shim(runtime, record, namespace, holder_sender),
        attach(runtime, record, namespace_sender, holder),
        make_files(runtime, record),
    );
    match (shim, ips, files) {
        (Ok((shim, news)), Ok(ips), Ok(())) => Ok(Made { shim, news, ips }),
        (shim, ips, files) => {
            let failed = [ips.err(), files.err()].into_iter().flatten().next();
            match shim {
                Ok((shim, _)) => {
                    shim.kill();
                    Err(failed.unwrap_or_else(|| Status::internal("the sandbox was not made")))
                }
                // Of the two, who waited for the other has failed for the other's reason.
                Err(status) => Err(failed.filter(|_| record.plan.user.is_none()).unwrap_or(status)),
            }
        }
    }
}

async fn make_files(runtime: &Arc<Runtime>, record: &SandboxRecord) -> Result<(), Status> {
    let (work, id, plan) = (Arc::clone(runtime), record.id.clone(), record.plan.clone());
    let made = blocking(move || {
        let folder = work.places.sandbox(&id);
        files::write(&folder, &plan, &work.facts.hostname)?;
        files::mount_shm(&folder, &plan)
    });
    made.await?.map_err(io_status("the sandbox's files"))
}

/// The network: `made` gets the namespace as soon as it is there, the plugins may take longer. That of a pod with a user
/// namespace is the shim's to make; `holder` says which process is in it then.
async fn attach(
    runtime: &Arc<Runtime>,
    record: &SandboxRecord,
    made: oneshot::Sender<Option<NetNs>>,
    holder: oneshot::Receiver<i32>,
) -> Result<Vec<String>, Status> {
    if record.plan.network == NamespaceScope::Node {
        let _ = made.send(None);
        return Ok(Vec::new());
    }
    let holder = if record.plan.user.is_some() {
        let _ = made.send(None);
        Err(holder.await.map_err(|_| Status::aborted("there is no network namespace"))?)
    } else {
        Ok(made)
    };
    let (work, record) = (Arc::clone(runtime), record.clone());
    let id = record.id.clone();
    let attached = blocking(move || {
        let path = work.places.namespace(&record.id);
        let list = work.network.choose()?;
        match holder {
            Err(shim) => work.network.adopt(&path, shim)?,
            Ok(made) => {
                let namespace = work.network.make(&path)?;
                let _ = made.send(Some(namespace));
            }
        }
        work.network.attach(&list, &record.id, &path, &record.config.0, &record.plan)
    });
    attached.await?.map_err(|error| Status::unknown(format!("failed to setup network for sandbox {id:?}: {error}")))
}

async fn start_shim(
    runtime: &Arc<Runtime>,
    record: &SandboxRecord,
    namespace: oneshot::Receiver<Option<NetNs>>,
    ready: oneshot::Sender<i32>,
) -> Result<(Arc<Shim>, mpsc::UnboundedReceiver<News>), Status> {
    let failed =
        |error: &dyn std::fmt::Display| Status::internal(format!("failed to start the sandbox's shim: {error}"));
    let folder = runtime.places.sandbox(&record.id);
    let (work, home, cgroup) = (Arc::clone(runtime), folder.clone(), runtime.shim_cgroup(&record.id));
    let spawned = blocking(move || {
        let cgroup = work.create_cgroup(&cgroup, &Default::default()).map_err(io::Error::other)?;
        shim::spawn(&work.shim, &home, &cgroup.entrances())
    });
    spawned.await?.map_err(|error| failed(&error))?;
    let (shim, _, news) = Shim::connect(&folder).await.map_err(|error| failed(&error))?;
    if let Err(error) = descriptors::restore(shim.pid) {
        tracing::warn!(sandbox = record.id, %error, "containers have the program's own limit of open files");
    }
    match ready_shim(record, &shim, namespace).await {
        Ok(()) => {
            let _ = ready.send(shim.pid);
            Ok((shim, news))
        }
        Err(status) => {
            shim.kill();
            Err(status)
        }
    }
}

async fn ready_shim(
    record: &SandboxRecord,
    shim: &Arc<Shim>,
    namespace: oneshot::Receiver<Option<NetNs>>,
) -> Result<(), Status> {
    let namespace = namespace.await.map_err(|_| Status::aborted("there is no network namespace"))?;
    let plan = &record.plan;
    let request = Request::Sandbox {
        join_network: namespace.is_some(),
        new_network: plan.user.is_some() && plan.network == NamespaceScope::Pod,
        new_ipc: plan.ipc == NamespaceScope::Pod,
        new_uts: plan.new_uts,
        shared_pid: plan.pid == NamespaceScope::Pod,
        user: plan.user.map(Into::into),
        hostname: plan.hostname.clone(),
        sysctls: plan.sysctls.clone(),
    };
    let descriptors: Vec<_> = namespace.iter().map(AsFd::as_fd).collect();
    let made = shim.order(request, &descriptors).await;
    made.map_err(|error| Status::unknown(format!("failed to create sandbox namespaces: {error}")))
}

/// Takes down what was made; the status that caused it, with what could not be undone.
async fn unwound(runtime: &Arc<Runtime>, record: SandboxRecord, cause: Status) -> Status {
    tracing::warn!(sandbox = record.id, error = cause.message(), "sandbox not made");
    let (work, id, made) = (Arc::clone(runtime), record.id.clone(), record.made_cgroups.clone());
    let left = match blocking(move || teardown::dismantle(&work, &id, &made)).await {
        Ok(Ok(())) => return cause,
        Ok(Err(left)) => left,
        Err(status) => status.message().to_owned(),
    };
    kept(runtime, record, cause.message());
    Status::new(cause.code(), format!("{}; and it could not be undone: {left}", cause.message()))
}

/// Shows what could not be taken down as it is, so that the kubelet's next StopPodSandbox and RemovePodSandbox try again.
pub(crate) fn kept(runtime: &Runtime, record: SandboxRecord, reason: &str) {
    let state = SandboxState::NotReady { reason: reason.to_owned(), ips: Vec::new() };
    let live = SandboxRecord { phase: Phase::Live(state.clone()), ..record.clone() };
    if let Err(error) = sandbox::write(runtime, live) {
        tracing::error!(sandbox = record.id, %error, "the sandbox's record can't be written");
    }
    runtime.world().insert_sandbox(Arc::new(Sandbox::new(record, state, None)));
}
