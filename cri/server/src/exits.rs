//! How containers and shims end, and what follows from it.

use std::sync::{Arc, Weak};

use berth_cri_core::state::{ContainerState, Moved, SandboxState};
use berth_cri_proto::v1::ContainerEventType;
use berth_effect::record;
use berth_plan::message::{Event, Exit};
use tokio::sync::mpsc;

use crate::container::Container;
use crate::records::{self, Phase};
use crate::runtime::Runtime;
use crate::sandbox::{self, Sandbox};
use crate::tasks::blocking;

/// Follows a sandbox's shim to its end. Holds neither the runtime nor the sandbox, so that both can go.
pub(crate) async fn watch(runtime: Weak<Runtime>, sandbox: Weak<Sandbox>, mut events: mpsc::UnboundedReceiver<Event>) {
    while let Some(event) = events.recv().await {
        let Some(runtime) = runtime.upgrade() else { return };
        match event {
            Event::ContainerExited { container, exit } => match runtime.container(&container) {
                Ok(container) => exited(&runtime, &container, &exit),
                Err(_) => tracing::warn!(container, "an unknown container ended"),
            },
            Event::ExecExited { exec, exit } => runtime.execs.ended(&exec, exit),
        }
    }
    let (Some(runtime), Some(sandbox)) = (runtime.upgrade(), sandbox.upgrade()) else { return };
    runtime.execs.lost(&sandbox.id);
    // A shim that was taken leave of is no longer the sandbox's.
    if sandbox.drop_shim().is_some() {
        tracing::error!(sandbox = sandbox.id, "the sandbox's shim died");
        let work = Arc::clone(&runtime);
        runtime.tasks.spawn(async move { lost(&work, &sandbox, "its shim died").await });
    }
}

/// A container's first process has ended.
pub(crate) fn exited(runtime: &Arc<Runtime>, container: &Arc<Container>, exit: &Exit) {
    // Before the cgroup goes: the count goes with it.
    let kills = runtime.cgroups.open(&container.record.cgroup).and_then(|cgroup| cgroup.oom_kills());
    let oom_killed = kills.is_ok_and(|kills| kills > 0);
    if container.transition(|state| state.exited(exit, oom_killed)) == Moved::Now {
        tracing::info!(container = container.id, code = exit.code, oom_killed, "container ended");
        runtime.tell(ContainerEventType::ContainerStoppedEvent, &container.id, &container.sandbox);
        settle(runtime, container);
    }
}

/// In a task of its own: ends what a container left running, removes its cgroup, writes down how it ended.
pub(crate) fn settle(runtime: &Arc<Runtime>, container: &Arc<Container>) {
    let (runtime, container) = (Arc::clone(runtime), Arc::clone(container));
    let tasks = runtime.tasks.clone();
    // Taken at once where possible, so that who waits for the container next finds it settled.
    let operation = runtime.operations.try_begin(&container.id, "settle");
    tasks.spawn(async move {
        let _operation = match operation {
            Some(operation) => operation,
            None => runtime.operations.begin(&container.id, "settle").await,
        };
        if runtime.container(&container.id).is_err() {
            return;
        }
        let settled = blocking(move || {
            end_cgroup(&runtime, &container.record.cgroup);
            write_exit(&runtime, &container);
        });
        let _ = settled.await;
    });
}

/// Kills what is in a cgroup and removes it; failures are logged, since removal tries again.
pub(crate) fn end_cgroup(runtime: &Runtime, path: &str) {
    let ended = runtime.cgroups.open(path).and_then(|cgroup| cgroup.kill().and_then(|()| cgroup.remove()));
    if let Err(error) = ended {
        tracing::warn!(%error, "a cgroup is left");
    }
}

/// Writes how a container ended where a reboot does not reach.
pub(crate) fn write_exit(runtime: &Runtime, container: &Container) {
    let state = container.state();
    if !matches!(state, ContainerState::Exited { .. }) {
        return;
    }
    let path = runtime.places.container_exit(&container.id);
    let written = records::encode(&runtime.boot_id, state)
        .map_err(std::io::Error::other)
        .and_then(|bytes| record::write_durable(&path, &bytes));
    if let Err(error) = written {
        tracing::error!(container = container.id, %error, "an exit can't be written down");
    }
}

/// A sandbox whose shim is gone: nothing watches its containers any more, so they are ended.
pub(crate) async fn lost(runtime: &Arc<Runtime>, sandbox: &Arc<Sandbox>, why: &str) {
    // First, so that nothing is started in it any more.
    mark_stopped(runtime, sandbox, why);
    let containers = runtime.containers_of(&sandbox.id);
    let (work, killed, id) = (Arc::clone(runtime), containers.clone(), sandbox.id.clone());
    let _ = blocking(move || {
        for container in &killed {
            let kill = work.cgroups.open(&container.record.cgroup).and_then(|cgroup| cgroup.kill());
            if let Err(error) = kill {
                tracing::error!(container = container.id, %error, "a container can't be killed");
            }
        }
        // The shim's log writer.
        end_cgroup(&work, &work.shim_cgroup(&id));
    })
    .await;
    for container in &containers {
        if let Some(exit) = exit_record(runtime, container) {
            exited(runtime, container, &exit);
        }
        let message = format!("the sandbox is not ready: {why}");
        if container.transition(|state| state.lost(berth_sys::process::now(), message)) == Moved::Now {
            runtime.tell(ContainerEventType::ContainerStoppedEvent, &container.id, &container.sandbox);
            settle(runtime, container);
        }
    }
}

/// The shim's record of a container's end, where it lived to write one.
pub(crate) fn exit_record(runtime: &Runtime, container: &Container) -> Option<Exit> {
    let path = runtime.places.exit(&container.sandbox, &container.id);
    let bytes = record::read(&path, 4096).ok().flatten()?;
    berth_plan::codec::decode(&bytes).ok()
}

/// Makes a sandbox NotReady, on disk too.
pub(crate) fn mark_stopped(runtime: &Runtime, sandbox: &Sandbox, why: &str) {
    if sandbox.transition(|state: &mut SandboxState| state.stopped(why)) == Moved::Now {
        if let Err(error) = sandbox::write(runtime, sandbox.record(Phase::Live(sandbox.state()))) {
            tracing::error!(sandbox = sandbox.id, %error, "the sandbox's record can't be written");
        }
        runtime.tell(ContainerEventType::ContainerStoppedEvent, &sandbox.id, &sandbox.id);
    }
}
