//! StartContainer: limits a cgroup and has the shim execute the plan in it.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_cri_core::resources;
use berth_cri_core::state::ContainerState;
use berth_cri_proto::v1::{ContainerEventType, StartContainerRequest, StartContainerResponse};
use berth_effect::record;
use berth_plan::message::{Failure, Reply, Request, Stage, Target};
use berth_sys::signal::SIGKILL;
use tonic::Status;

use super::invalid;
use crate::cgroups::{self, Entry};
use crate::container::Container;
use crate::exits;
use crate::handlers::bundle;
use crate::records;
use crate::runtime::Runtime;
use crate::shim::{Shim, ShimError};
use crate::tasks::blocking;

/// How long a container whose start is given up may take to be gone, before its shim is killed.
const DEATH: Duration = Duration::from_secs(20);
/// Between two looks whether it is.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: StartContainerRequest,
) -> Result<StartContainerResponse, Status> {
    let container = runtime.container(&request.container_id)?;
    let operation = runtime.operations.begin(&container.id, "start").await;
    // It may have been removed while we waited.
    runtime.container(&container.id)?;
    let sandbox = runtime
        .sandbox(&container.sandbox)
        .map_err(|_| Status::failed_precondition(format!("the sandbox of container {:?} is gone", container.id)))?;
    container.state().may_start(&sandbox.state()).map_err(|refusal| {
        Status::failed_precondition(format!("failed to start container {:?}: {refusal}", container.id))
    })?;
    // Whoever stops a sandbox waits for starts that began earlier, and for no later one.
    if runtime.operations.is_ending(&sandbox.id) {
        return Err(Status::failed_precondition(format!(
            "failed to start container {:?}: its sandbox is being stopped",
            container.id
        )));
    }
    let shim = sandbox.shim().ok_or_else(|| Status::failed_precondition("the sandbox's shim is gone"))?;
    match start(runtime, &container, &shim).await {
        Ok((pid, started_at)) => {
            // An exit that was faster stands.
            let _ = container.transition(|state| state.started(pid, started_at));
            runtime.tell(ContainerEventType::ContainerStartedEvent, &container.id, &container.sandbox);
            Ok(StartContainerResponse {})
        }
        Err(error) => {
            let message = format!("failed to start container {:?}: {}", container.id, error.message());
            tracing::warn!(container = container.id, error = error.message(), "container not started");
            let _ = container.transition(|state| state.start_failed(berth_sys::process::now(), error.message()));
            drop(operation);
            exits::settle(runtime, &container);
            runtime.tell(ContainerEventType::ContainerStoppedEvent, &container.id, &container.sandbox);
            Err(Status::new(error.code(), message))
        }
    }
}

/// Its process id and when it began.
async fn start(runtime: &Arc<Runtime>, container: &Arc<Container>, shim: &Arc<Shim>) -> Result<(i32, i64), Status> {
    let limits = resources::from_cri(&container.limits()).map_err(|error| invalid(&error))?;
    let (work, prepared) = (Arc::clone(runtime), Arc::clone(container));
    let (plan, mut entry, delegated) = blocking(move || {
        let (plan, frame) =
            prepared.plan(&work.places).map_err(|error| Status::internal(format!("its plan: {error}")))?;
        write_start(&work, &prepared.id);
        let delegated = plan.delegate.is_some();
        let plan = berth_sys::memfd::sealed("container-plan", &frame)
            .map_err(|error| Status::internal(format!("its plan: {error}")))?;
        make_log_folder(&prepared.record.log_path)?;
        let make = || {
            cgroups::make(&work, &prepared, &limits)
                .map_err(|error| Status::unknown(format!("unable to apply cgroup configuration: {error}")))
        };
        // Another runtime brings the container into its cgroups, and stays outside. A scope it makes by itself.
        let entry = match (delegated, prepared.record.unit.is_empty()) {
            (false, _) => make()?,
            (true, true) => make().map(|_| Entry::default())?,
            (true, false) => Entry::default(),
        };
        Ok::<_, Status>((plan, entry, delegated))
    })
    .await??;
    let held = entry.held.take();
    let Entry { handles, tasks, .. } = &entry;
    let request =
        Request::Start { container: container.id.clone(), cgroup_tasks: *tasks, cgroup_v2: handles.v2.is_some() };
    let descriptors: Vec<_> =
        [plan.as_fd()].into_iter().chain(handles.tasks.iter().chain(&handles.v2).map(AsFd::as_fd)).collect();
    let answer = shim.call(request, &descriptors).await;
    if let Some(held) = held {
        blocking(move || held.release()).await?;
    }
    match answer {
        Ok(Reply::Started { pid, started_at }) => Ok((pid, started_at)),
        Ok(_) => Err(Status::internal("the sandbox's shim answers out of turn")),
        Err(error @ (ShimError::Silent | ShimError::Broken | ShimError::Unexpected)) => {
            give_up(container, shim, delegated).await;
            Err(Status::unavailable(format!("{error}; what there was of the container was killed")))
        }
        Err(ShimError::Failed(failure)) if delegated => Err(explain_delegate(runtime, container, failure).await),
        Err(ShimError::Failed(failure)) if container.ran_out_of_memory(runtime, true) => {
            let limit = container.limits().memory_limit_in_bytes;
            let text = format!("the container ran out of memory before its program ran (the limit is {limit} bytes)");
            Err(Status::unknown(format!("{text}: {}", failure.message)))
        }
        Err(ShimError::Failed(failure)) => Err(explain(container, &failure)),
        Err(error) => Err(Status::unavailable(error.to_string())),
    }
}

/// Ends a container of which nobody knows whether it was started, or still will be: a second one must not run beside what
/// is taken for failed.
async fn give_up(container: &Container, shim: &Shim, delegated: bool) {
    let gone = async {
        // Another runtime's command would go on without the process that is signalled.
        while !delegated && container.state() == ContainerState::Created {
            let target = Target::Container(container.id.clone());
            match shim.order(Request::Signal { target, signal: SIGKILL }, &[]).await {
                // It does not exist (any more), and neither does what held it.
                Err(ShimError::Failed(_) | ShimError::Gone) => return true,
                // It is being killed, or the shim can't be asked now.
                _ => tokio::time::sleep(LOOK).await,
            }
        }
        !delegated
    };
    if !tokio::time::timeout(DEATH, gone).await.unwrap_or(false) {
        tracing::error!(container = container.id, shim = shim.pid, "its shim does not say how its start went: killed");
        shim.kill();
        // Its watcher ends the sandbox, and this container with it.
        let mut state = container.changes();
        let _ = tokio::time::timeout(DEATH, state.wait_for(|state| *state != ContainerState::Created)).await;
    }
}

/// Writes down that it is started now, for its status after a restart of the machine.
fn write_start(runtime: &Runtime, id: &str) {
    let state = ContainerState::Running { started_at: berth_sys::process::now(), pid: 0 };
    let path = runtime.places.container_start(id);
    let written = records::encode(&runtime.boot_id, state)
        .map_err(std::io::Error::other)
        .and_then(|bytes| record::write_volatile(&path, &bytes));
    if let Err(error) = written {
        tracing::warn!(container = id, %error, "a start can't be written down");
    }
}

/// The kubelet makes this folder; other clients rely on us.
fn make_log_folder(log: &str) -> Result<(), Status> {
    match Path::new(log).parent() {
        Some(folder) if !log.is_empty() => fs::create_dir_all(folder).map_err(|error| {
            Status::unknown(format!("failed to create the log's folder {}: {error}", folder.display()))
        }),
        _ => Ok(()),
    }
}

/// With another runtime's own words.
async fn explain_delegate(runtime: &Arc<Runtime>, container: &Arc<Container>, mut failure: Failure) -> Status {
    let (work, failed) = (Arc::clone(runtime), Arc::clone(container));
    if let Ok(Some(complaint)) = blocking(move || bundle::complaint(&work, &failed)).await {
        failure.message = format!("{}: {complaint}", failure.message);
    }
    explain(container, &failure)
}

/// In the words that people know from other runtimes.
fn explain(container: &Container, failure: &Failure) -> Status {
    let what = match failure.stage {
        Stage::Execve => "unable to start container process",
        Stage::Cwd => "unable to enter the working directory",
        Stage::Mount | Stage::Rootfs => "error mounting",
        Stage::Device => "error creating device nodes",
        Stage::Cgroup => "unable to apply cgroup configuration",
        Stage::Namespace => "unable to create namespaces",
        Stage::Sysctl => "unable to apply sysctls",
        Stage::Paths => "unable to mask paths",
        Stage::Log => "failed to open the log",
        Stage::Rlimit => "unable to apply rlimits",
        Stage::User => "unable to set the user",
        Stage::Capabilities => "unable to set capabilities",
        Stage::Seccomp => "unable to load the seccomp filter",
        Stage::Fork => "unable to create the process",
        Stage::Delegate => "OCI runtime failed",
        Stage::Protocol | Stage::UnknownTarget | Stage::AlreadyExists => "the shim refused",
    };
    let text = format!("{what}: {}", failure.message);
    match failure.stage {
        Stage::AlreadyExists => Status::already_exists(text),
        Stage::Protocol => Status::internal(text),
        _ => {
            tracing::debug!(container = container.id, stage = ?failure.stage, errno = failure.errno, "start failed");
            Status::unknown(text)
        }
    }
}
