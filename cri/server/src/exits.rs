//! How containers and shims end, and what follows from it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use berth_cri_core::state::{ContainerState, Moved, SandboxState};
use berth_cri_proto::v1::ContainerEventType;
use berth_effect::record;
use berth_plan::message::{Event, Exit, Held};
use berth_sys::signal::SIGKILL;
use tokio::sync::mpsc;

use crate::cgroups;
use crate::container::Container;
use crate::records::{self, ContainerRecord, Phase};
use crate::runtime::Runtime;
use crate::sandbox::{self, Sandbox};
use crate::shim::{News, ShimError};
use crate::tasks::blocking;

/// Between two attempts to ask a shim what it holds.
const PAUSE: Duration = Duration::from_secs(1);

/// Follows a sandbox's shim to its end. Holds neither the runtime nor the sandbox, so that both can go.
pub(crate) async fn watch(runtime: Weak<Runtime>, sandbox: Weak<Sandbox>, mut news: mpsc::UnboundedReceiver<News>) {
    while let Some(next) = news.recv().await {
        match next {
            News::Event(event) => {
                let Some(runtime) = runtime.upgrade() else { return };
                happened(&runtime, event);
            }
            News::Missed => while catch_up(&runtime, &sandbox, &mut news).await {},
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

fn happened(runtime: &Arc<Runtime>, event: Event) {
    match event {
        Event::ContainerExited { container, exit } => match runtime.container(&container) {
            Ok(container) => exited(runtime, &container, &exit),
            Err(_) => tracing::warn!(container, "an unknown container ended"),
        },
        Event::ExecExited { exec, exit } => runtime.execs.ended(&exec, exit),
    }
}

/// Asks a shim for what its events would have said that may be lost. Whether more was lost meanwhile.
async fn catch_up(runtime: &Weak<Runtime>, sandbox: &Weak<Sandbox>, news: &mut mpsc::UnboundedReceiver<News>) -> bool {
    let (begun, shim) = {
        let (Some(runtime), Some(sandbox)) = (runtime.upgrade(), sandbox.upgrade()) else { return false };
        let Some(shim) = sandbox.shim() else { return false };
        (runtime.execs.of(&sandbox.id), shim)
    };
    let held = loop {
        match shim.holds().await {
            Ok(held) => break held,
            Err(ShimError::Gone) => return false,
            Err(error) => {
                tracing::warn!(shim = shim.pid, %error, "a shim does not say what it holds");
                tokio::time::sleep(PAUSE).await;
            }
        }
    };
    let (Some(runtime), Some(sandbox)) = (runtime.upgrade(), sandbox.upgrade()) else { return false };
    // What it said before its answer has arrived, and says more than that.
    let mut again = false;
    while let Ok(next) = news.try_recv() {
        match next {
            News::Event(event) => happened(&runtime, event),
            News::Missed => again = true,
        }
    }
    // Nothing is started by what it says: whoever starts a container hears of it, or ends it.
    for held in &held.containers {
        if let Held::Exited { container, exit } = held
            && let Ok(container) = runtime.container(container)
        {
            exited(&runtime, &container, exit);
        }
    }
    for exec in begun.iter().filter(|exec| !held.execs.contains(exec)) {
        runtime.execs.forget(exec);
    }
    tracing::info!(sandbox = sandbox.id, "what a shim said meanwhile is made up for");
    again
}

/// A container's first process has ended.
pub(crate) fn exited(runtime: &Arc<Runtime>, container: &Arc<Container>, exit: &Exit) {
    // Before the cgroup goes: the count goes with it.
    let oom_killed = container.ran_out_of_memory(runtime, exit.signal == SIGKILL);
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
            end_container(&runtime, &container.record);
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

/// As [`end_cgroup`], a container's.
pub(crate) fn end_container(runtime: &Runtime, record: &ContainerRecord) {
    if let Err(error) = cgroups::end(runtime, record) {
        tracing::warn!(container = record.id, %error, "a container's cgroup is left");
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
        // The shim's log writer; and what was making a container for it, which would put another process into the
        // container's cgroup.
        end_cgroup(&work, &work.shim_cgroup(&id));
        for container in &killed {
            let kill = work.cgroups.open(&container.record.cgroup).and_then(|cgroup| cgroup.kill());
            if let Err(error) = kill {
                tracing::error!(container = container.id, %error, "a container can't be killed");
            }
        }
    })
    .await;
    for container in &containers {
        settle_by_record(runtime, container);
        let message = format!("the sandbox is not ready: {why}");
        if container.transition(|state| state.lost(berth_sys::process::now(), message)) == Moved::Now {
            runtime.tell(ContainerEventType::ContainerStoppedEvent, &container.id, &container.sandbox);
            settle(runtime, container);
        }
    }
}

/// Takes note of an end that the shim has written down. Whether there is one.
pub(crate) fn settle_by_record(runtime: &Arc<Runtime>, container: &Arc<Container>) -> bool {
    let exit = exit_record(runtime, container);
    if let Some(exit) = &exit {
        exited(runtime, container, exit);
    }
    exit.is_some()
}

/// The shim's record of a container's end, where it lived to write one.
fn exit_record(runtime: &Runtime, container: &Container) -> Option<Exit> {
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
