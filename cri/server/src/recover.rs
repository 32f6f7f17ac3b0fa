//! What an earlier life of the runtime left: adopted, finished or undone.
//!
//! The folders are the truth. A sandbox whose record says `Creating` or `Removing`, and one of another boot, is taken
//! down; one that is live is adopted with its shim, or marked NotReady without. What belongs to nobody goes: shims,
//! namespaces, attachments, mounts, cgroups, snapshots, half-written files. A record that can't be understood is set
//! aside and costs its own sandbox or container, never another's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_cri_core::compile::NamespaceScope;
use berth_cri_core::state::{ContainerState, SandboxState, Stamped};
use berth_cri_core::{ids, names};
use berth_effect::record::{self, TEMPORARY_PREFIX};
use berth_plan::message::{Held, Request, Target};
use serde::de::DeserializeOwned;

use crate::container::Container;
use crate::network::pinned;
use crate::records::{ContainerRecord, LIMIT, Phase, SandboxRecord};
use crate::runtime::Runtime;
use crate::sandbox::Sandbox;
use crate::shim::{Greeting, Shim};
use crate::{OpenError, exits, teardown};

/// How long a plugin that an earlier life exec'd may take to end.
const PLUGINS: Duration = Duration::from_secs(240);

/// How many live sandboxes are adopted with what their shims hold.
type Adopted = BTreeMap<String, Vec<Held>>;

pub(crate) async fn recover(runtime: &Arc<Runtime>) -> Result<(), OpenError> {
    let places = &runtime.places;
    let running = places.running_plugins();
    berth_cni::wait_for_orphans(&running, PLUGINS).map_err(OpenError::io("wait for plugins in", &running))?;
    let mut stray = shim_processes(&places.sandboxes());
    let mut adopted = Adopted::new();
    let mut undo: Vec<(String, Vec<String>)> = Vec::new();

    for id in folders(&places.sandboxes())? {
        clean_temporaries(&places.sandbox(&id));
        match load::<SandboxRecord>(&places.sandbox_record(&id)) {
            Some(Stamped { boot_id, record, .. }) if boot_id == runtime.boot_id && record.id == id => {
                match record.phase.clone() {
                    Phase::Live(state) => {
                        let (sandbox, held) = adopt(runtime, record, state, &mut stray).await;
                        if let Some(held) = held {
                            adopted.insert(id, held);
                        }
                        remember(runtime, sandbox);
                    }
                    Phase::Creating | Phase::Removing => undo.push((id, record.made_cgroups)),
                }
            }
            Some(Stamped { record, .. }) => undo.push((id, record.made_cgroups)),
            None => undo.push((id, Vec::new())),
        }
    }
    // Shims of nobody; those of adopted sandboxes were taken off the list.
    for pid in stray.values().flatten() {
        tracing::warn!(pid, "a shim of no sandbox is ended");
        if let Ok(process) = berth_sys::pidfd::PidFd::open(*pid) {
            let _ = process.kill();
            let _ = process.has_ended(2000);
        }
    }
    containers(runtime, &adopted, &undo)?;
    for (id, made) in undo {
        tracing::info!(sandbox = id, "a sandbox that was not finished is taken down");
        if let Err(error) = teardown::dismantle(runtime, &id, &made) {
            tracing::error!(sandbox = id, error, "a left-over sandbox can't be taken down");
        }
    }
    finish(runtime, &adopted).await;
    orphans(runtime);
    Ok(())
}

fn remember(runtime: &Runtime, sandbox: Arc<Sandbox>) {
    let mut world = runtime.world();
    world.sandbox_names.insert(names::sandbox(&sandbox.metadata()), sandbox.id.clone());
    world.sandboxes.insert(sandbox.id.clone(), sandbox);
}

/// A live sandbox with what its shim holds; `None` where it has none (any more).
async fn adopt(
    runtime: &Arc<Runtime>,
    record: SandboxRecord,
    state: SandboxState,
    stray: &mut BTreeMap<String, Vec<i32>>,
) -> (Arc<Sandbox>, Option<Vec<Held>>) {
    let SandboxState::Ready { shim: pid, shim_started, .. } = state else {
        return (Arc::new(Sandbox::new(record, state, None)), None);
    };
    let folder = runtime.places.sandbox(&record.id);
    match Shim::connect(&folder).await {
        Ok((shim, Greeting { sandbox_ready: true, containers }, events))
            if (shim.pid, shim.started) == (pid, shim_started) =>
        {
            stray.remove(&record.id);
            let sandbox = Arc::new(Sandbox::new(record, state, Some(shim)));
            tokio::spawn(exits::watch(Arc::downgrade(runtime), Arc::downgrade(&sandbox), events));
            (sandbox, Some(containers))
        }
        Ok((shim, _, _)) => {
            tracing::error!(sandbox = record.id, pid = shim.pid, "the shim is not the sandbox's");
            (Arc::new(Sandbox::new(record, state, None)), None)
        }
        Err(error) => {
            tracing::warn!(sandbox = record.id, %error, "the sandbox's shim is gone");
            (Arc::new(Sandbox::new(record, state, None)), None)
        }
    }
}

/// Loads every container's record; those of sandboxes that are taken down are removed, as far as their processes, or kept
/// as ended.
fn containers(runtime: &Arc<Runtime>, adopted: &Adopted, undo: &[(String, Vec<String>)]) -> Result<(), OpenError> {
    let removing: BTreeSet<&str> = undo.iter().map(|(id, _)| id.as_str()).collect();
    for id in folders(&runtime.places.containers())? {
        clean_temporaries(&runtime.places.container(&id));
        let Some(Stamped { boot_id, record, .. }) = load::<ContainerRecord>(&runtime.places.container_record(&id))
        else {
            if !has_corrupt(&runtime.places.container(&id)) {
                remove_remains(runtime, "", &id);
            }
            continue;
        };
        if record.id != id {
            tracing::error!(container = id, "a container's record lies in another's folder");
            continue;
        }
        let alive = adopted.get(&record.sandbox).is_some_and(|held| {
            held.iter().any(|held| matches!(held, Held::Running { container, .. } if *container == id))
        });
        let removed = removing.contains(record.sandbox.as_str());
        let exit = load::<ContainerState>(&runtime.places.container_exit(&id)).map(|exit| exit.record);
        // An end that nobody has taken note of yet: its cgroup still tells whether it was for memory, and goes when it
        // is settled.
        let unread = !removed && exit.is_none() && runtime.places.exit(&record.sandbox, &id).exists();
        if boot_id == runtime.boot_id && !alive && !unread {
            exits::end_cgroup(runtime, &record.cgroup);
        }
        if removed && boot_id == runtime.boot_id {
            remove_remains(runtime, &record.sandbox, &id);
            continue;
        }
        let state = exit.unwrap_or(ContainerState::Created);
        let container = Container::new(record, state);
        let mut world = runtime.world();
        let pod = container.record.sandbox_config.0.metadata.clone().unwrap_or_default();
        let own = container.config().metadata.clone().unwrap_or_default();
        world.container_names.insert(names::container(&own, &pod), id.clone());
        world.containers.insert(id, container);
    }
    Ok(())
}

fn remove_remains(runtime: &Runtime, sandbox: &str, id: &str) {
    if let Err(error) = teardown::container_remains(runtime, sandbox, id) {
        tracing::error!(container = id, error, "a left-over container can't be removed");
    }
    // Whatever else of ours is there: the store removes the folder only when it is empty.
    let _ = fs::remove_dir(runtime.places.container(id));
}

/// Brings each container's state up to what its shim holds, or to its end where there is no shim.
async fn finish(runtime: &Arc<Runtime>, adopted: &Adopted) {
    for sandbox in runtime.sandboxes() {
        match adopted.get(&sandbox.id) {
            Some(held) => settle_adopted(runtime, &sandbox, held).await,
            None => {
                let stopped = matches!(sandbox.state(), SandboxState::NotReady { .. });
                exits::lost(runtime, &sandbox, "its shim is gone").await;
                let has_network = sandbox.plan.network == NamespaceScope::Pod;
                // What StopPodSandbox had begun is finished; for a lost one the kubelet calls it.
                if stopped && let Err(error) = teardown::release(runtime, &sandbox.id, has_network) {
                    tracing::warn!(sandbox = sandbox.id, error, "a stopped sandbox still holds something");
                }
            }
        }
    }
    for container in runtime.containers() {
        if runtime.sandbox(&container.sandbox).is_err() {
            container.transition(|state| state.after_reboot(berth_sys::process::now()));
        }
    }
}

async fn settle_adopted(runtime: &Arc<Runtime>, sandbox: &Arc<Sandbox>, held: &[Held]) {
    for held in held {
        let id = match held {
            Held::Running { container, .. } | Held::Exited { container, .. } => container,
        };
        match (runtime.container(id), held) {
            (Ok(container), Held::Running { pid, started_at, .. }) => {
                let _ = container.transition(|state| state.started(*pid, *started_at));
            }
            (Ok(container), Held::Exited { exit, .. }) => exits::exited(runtime, &container, exit),
            (Err(_), _) => {
                tracing::warn!(container = id, "a container without a record is ended");
                if let Some(shim) = sandbox.shim() {
                    let kill = Request::Signal { target: Target::Container(id.clone()), signal: 9 };
                    let _ = shim.order(kill, &[]).await;
                    let _ = shim.order(Request::Forget { container: id.clone() }, &[]).await;
                }
            }
        }
    }
}

/// Removes what no sandbox owns.
fn orphans(runtime: &Runtime) {
    let known: BTreeSet<String> = runtime.world().sandboxes.keys().cloned().collect();
    for id in pinned(&runtime.places) {
        if !known.contains(&id)
            && let Err(error) = runtime.network.detach(&id, &runtime.places.namespace(&id))
        {
            tracing::error!(sandbox = id, %error, "a left-over network namespace can't be removed");
        }
    }
    let live: Vec<String> = known.iter().cloned().collect();
    runtime.network.collect(&live, &runtime.places);
    let parent = runtime.config.cgroup_parent.trim_end_matches('/').to_owned();
    for name in runtime.cgroups.children(&parent) {
        let owner = name.strip_prefix("shim-").or_else(|| name.strip_prefix("pod-"));
        if owner.is_some_and(|owner| ids::is_id(owner) && !known.contains(owner)) {
            exits::end_cgroup(runtime, &format!("{parent}/{name}"));
        }
    }
    runtime.tidy_cgroups();
}

/// The processes that run a shim below `sandboxes`, by sandbox: also those that were just being started.
fn shim_processes(sandboxes: &Path) -> BTreeMap<String, Vec<i32>> {
    let mut found = BTreeMap::<String, Vec<i32>>::new();
    let (Ok(entries), Some(ours)) = (fs::read_dir("/proc"), identity(sandboxes)) else { return found };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let mut arguments =
            line.split(|byte| *byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned());
        let (Some(_), Some(flag), Some(folder)) = (arguments.next(), arguments.next(), arguments.next()) else {
            continue;
        };
        if flag == "--dir"
            && let Ok(id) = Path::new(&folder).strip_prefix(sandboxes)
            && let Some(id) = id.to_str().filter(|id| ids::is_id(id))
            // In a container of this machine there may be another runtime with paths like ours.
            && identity(&seen_by(&entry.path(), sandboxes)) == Some(ours)
        {
            found.entry(id.to_owned()).or_default().push(pid);
        }
    }
    found
}

/// What a process means by a path, from here.
fn seen_by(process: &Path, path: &Path) -> PathBuf {
    process.join("root").join(path.strip_prefix("/").unwrap_or(path))
}

/// Which file a path leads to.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).map(|data| (data.dev(), data.ino())).ok()
}

/// The folders of a folder that have ids as names.
fn folders(path: &Path) -> Result<Vec<String>, OpenError> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(OpenError::io("list", path))?,
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| ids::is_id(name)).collect())
}

/// Reads a record; one that can't be understood is set aside.
fn load<T: DeserializeOwned>(path: &Path) -> Option<Stamped<T>> {
    let reason = match record::read(path, LIMIT) {
        Ok(None) => return None,
        Ok(Some(bytes)) => match Stamped::from_bytes(&bytes) {
            Ok(record) => return Some(record),
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    };
    tracing::error!(record = %path.display(), reason, "a record can't be understood and is set aside");
    if let Err(error) = record::set_aside(path) {
        tracing::error!(record = %path.display(), %error, "it can't be set aside");
    }
    None
}

fn has_corrupt(folder: &Path) -> bool {
    folder.join("container.json.corrupt").exists()
}

fn clean_temporaries(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX) {
            let path = entry.path();
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
}
