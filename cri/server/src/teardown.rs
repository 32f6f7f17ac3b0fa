//! Taking things down. Every step may have been done before, and none needs more than an id.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use berth_cri_core::compile::NamespaceScope;
use berth_effect::record;
use berth_plan::message::{Request, Target};
use berth_sys::signal::SIGKILL;
use tonic::Status;

use crate::cgroups;
use crate::container::Container;
use crate::exits::{self, end_cgroup, mark_stopped};
use crate::files;
use crate::handlers::bundle;
use crate::runtime::Runtime;
use crate::sandbox::Sandbox;
use crate::shim::{self, Shim, ShimError};
use crate::tasks::blocking;

/// How long a process may take to die of SIGKILL; past it, it hangs in the kernel.
const DEATH: Duration = Duration::from_secs(20);

/// Why a container does not end.
enum Unended {
    /// Its shim takes no signal. Its processes were killed all the same, but nobody says so.
    Silent,
    Status(Status),
}

impl From<Status> for Unended {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// Stops a container: its stop signal, and SIGKILL once `grace` is over. One that does not run is fine; one that is being
/// started is stopped as soon as it runs, since the start would otherwise undo the stop.
pub(crate) async fn stop_container(
    runtime: &Arc<Runtime>,
    container: &Arc<Container>,
    grace: Duration,
) -> Result<(), Status> {
    end_container(runtime, container, grace).await.map_err(|unended| match unended {
        Unended::Status(status) => status,
        Unended::Silent => Status::deadline_exceeded(format!(
            "the shim of container {:?} does not answer; the container's processes were sent SIGKILL, and stopping its \
             sandbox ends the shim, too",
            container.id
        )),
    })
}

async fn end_container(runtime: &Arc<Runtime>, container: &Arc<Container>, grace: Duration) -> Result<(), Unended> {
    runtime.operations.pass(&container.id, "start").await;
    if !container.is_running() {
        return settled(runtime, container).await;
    }
    if !grace.is_zero()
        && signal(runtime, container, container.record.stop_signal).await?
        && tokio::time::timeout(grace, container.ended()).await.is_ok()
    {
        return settled(runtime, container).await;
    }
    let heard = signal(runtime, container, SIGKILL).await?;
    let (work, cgroup) = (Arc::clone(runtime), container.record.cgroup.clone());
    // With the first process of a PID namespace all others die; without one of its own they are killed here.
    let killed = blocking(move || work.cgroups.open(&cgroup).and_then(|cgroup| cgroup.kill())).await?;
    killed.map_err(|error| Status::internal(format!("failed to kill container {:?}: {error}", container.id)))?;
    if !heard && container.is_running() {
        return Err(Unended::Silent);
    }
    if tokio::time::timeout(DEATH, container.ended()).await.is_ok() || exits::settle_by_record(runtime, container) {
        return settled(runtime, container).await;
    }
    Err(Unended::Status(Status::deadline_exceeded(format!(
        "container {:?} does not die: it was sent SIGKILL {} s ago",
        container.id,
        DEATH.as_secs()
    ))))
}

/// Waits until what follows a container's end is done.
async fn settled<E>(runtime: &Runtime, container: &Container) -> Result<(), E> {
    runtime.operations.pass(&container.id, "settle").await;
    Ok(())
}

/// Whether the shim took it; one that does not answer is no error here, since there are other ways to end a container.
async fn signal(runtime: &Runtime, container: &Container, signal: i32) -> Result<bool, Status> {
    let Ok(sandbox) = runtime.sandbox(&container.sandbox) else { return Ok(true) };
    // Without a shim the container is being ended as lost.
    let Some(shim) = sandbox.shim() else { return Ok(true) };
    let target = Target::Container(container.id.clone());
    match shim.order(Request::Signal { target, signal }, &[]).await {
        // It has ended meanwhile, or its shim has.
        Ok(()) | Err(ShimError::Failed(_) | ShimError::Gone) => Ok(true),
        Err(error @ (ShimError::Silent | ShimError::Broken)) => {
            tracing::error!(container = container.id, shim = shim.pid, signal, %error, "a container is not signalled");
            Ok(false)
        }
        Err(error) => Err(Status::internal(format!("failed to signal container {:?}: {error}", container.id))),
    }
}

/// Removes a container that does not run, with everything that is kept for it.
pub(crate) async fn remove_container(runtime: &Arc<Runtime>, container: &Arc<Container>) -> Result<(), Status> {
    if let Ok(sandbox) = runtime.sandbox(&container.sandbox)
        && let Some(shim) = sandbox.shim()
    {
        // A shim that does not know it holds nothing for it.
        let _ = shim.order(Request::Forget { container: container.id.clone() }, &[]).await;
    }
    let (work, gone) = (Arc::clone(runtime), Arc::clone(container));
    blocking(move || container_files(&work, &gone))
        .await?
        .map_err(|error| Status::internal(format!("failed to remove container {:?}: {error}", container.id)))?;
    let mut world = runtime.world();
    world.containers.remove(&container.id);
    world.container_names.retain(|_, id| *id != container.id);
    Ok(())
}

/// The record goes first: what is left without it belongs to nobody, and recovery removes it.
fn container_files(runtime: &Runtime, container: &Container) -> Result<(), String> {
    cgroups::end(runtime, &container.record).map_err(|error| error.to_string())?;
    container_remains(runtime, &container.sandbox, &container.id)
}

/// Removes the files of a container that has no cgroup (any more).
pub(crate) fn container_remains(runtime: &Runtime, sandbox: &str, id: &str) -> Result<(), String> {
    // While there still is a record that says whose it is.
    bundle::remove(runtime, sandbox, id)?;
    let places = &runtime.places;
    let records = [
        places.container_record(id),
        places.container_exit(id),
        places.container_start(id),
        places.container_spec(id),
        places.plan(sandbox, id),
        places.exit(sandbox, id),
    ];
    for path in records {
        match record::remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotADirectory => {
                return Err(format!("{}: {error}", path.display()));
            }
            _ => {}
        }
    }
    runtime.images.remove_snapshot(id).map_err(|error| error.to_string())
}

/// Stops a sandbox: its containers at once, then its shim and its network. What is stopped already is fine. The caller
/// has begun to stop or remove it, so that no container is created or started in it meanwhile.
pub(crate) async fn stop_sandbox(runtime: &Arc<Runtime>, sandbox: &Arc<Sandbox>) -> Result<(), Status> {
    for container in runtime.containers_of(&sandbox.id) {
        match end_container(runtime, &container, Duration::ZERO).await {
            Ok(()) => {}
            Err(Unended::Silent) => end_silent(runtime, sandbox).await?,
            Err(Unended::Status(status)) => return Err(status),
        }
    }
    mark_stopped(runtime, sandbox, "it was stopped");
    if let Some(shim) = sandbox.drop_shim() {
        leave(&shim).await;
    }
    let (work, stopped) = (Arc::clone(runtime), Arc::clone(sandbox));
    blocking(move || release(&work, &stopped.id, stopped.plan.network == NamespaceScope::Pod))
        .await?
        .map_err(|error| Status::unknown(format!("failed to stop sandbox {:?}: {error}", sandbox.id)))
}

/// Ends a sandbox whose shim hangs: with the shim all of its containers are given up as lost, which is waited for.
async fn end_silent(runtime: &Arc<Runtime>, sandbox: &Arc<Sandbox>) -> Result<(), Status> {
    if let Some(shim) = sandbox.shim() {
        tracing::error!(sandbox = sandbox.id, shim = shim.pid, "the sandbox's shim does not answer and is killed");
        shim.kill();
    }
    for container in runtime.containers_of(&sandbox.id) {
        tokio::time::timeout(DEATH, container.ended()).await.map_err(|_| {
            Status::deadline_exceeded(format!(
                "the shim of sandbox {:?} does not die: it was sent SIGKILL {} s ago",
                sandbox.id,
                DEATH.as_secs()
            ))
        })?;
        settled::<Status>(runtime, &container).await?;
    }
    Ok(())
}

/// Has a shim leave, by force if it must be.
pub(crate) async fn leave(shim: &Arc<Shim>) {
    if let Err(error) = shim.order(Request::Shutdown, &[]).await {
        tracing::warn!(shim = shim.pid, %error, "a shim does not leave and is killed");
        shim.kill();
    }
    let shim = Arc::clone(shim);
    let _ = blocking(move || {
        if !shim.ends_within(2000) {
            shim.kill();
            shim.ends_within(2000);
        }
    })
    .await;
}

/// What a sandbox holds of the machine besides its containers: the shim's cgroup, network, shared memory.
pub(crate) fn release(runtime: &Runtime, id: &str, has_network: bool) -> Result<(), String> {
    shim::end_stray(&runtime.places.sandbox(id));
    end_cgroup(runtime, &runtime.shim_cgroup(id));
    runtime.tidy_cgroups();
    if has_network {
        let path = runtime.places.namespace(id);
        runtime.network.detach(id, &path).map_err(|error| format!("failed to destroy network: {error}"))?;
    }
    files::unmount_shm(&runtime.places.sandbox(id)).map_err(|error| format!("failed to unmount shm: {error}"))
}

/// The cgroups that were made for a sandbox, once its containers' are gone. One that others use stays.
pub(crate) fn remove_cgroup_parents(runtime: &Runtime, made: &[String]) {
    let turn = runtime.cgroup_parents.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for path in made.iter().rev() {
        cgroups::end_slice(runtime, path);
        if let Ok(cgroup) = runtime.cgroups.open(path)
            && cgroup.exists()
        {
            cgroup.remove_if_empty();
        }
    }
    drop(turn);
    runtime.tidy_cgroups();
}

/// Removes a sandbox's folder, its record last.
pub(crate) fn remove_folder(runtime: &Runtime, id: &str) -> io::Result<()> {
    let folder = runtime.places.sandbox(id);
    let record = runtime.places.sandbox_record(id);
    berth_effect::run("sandbox-folder-remove", || -> io::Result<()> {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.path() == record {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    })?;
    record::remove(&record)?;
    match fs::remove_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Everything of a sandbox that has no containers, whatever of it was made.
pub(crate) fn dismantle(runtime: &Runtime, id: &str, made_cgroups: &[String]) -> Result<(), String> {
    release(runtime, id, true)?;
    bundle::remove_all(runtime, id)?;
    remove_cgroup_parents(runtime, made_cgroups);
    remove_folder(runtime, id).map_err(|error| format!("failed to remove the sandbox's folder: {error}"))
}
