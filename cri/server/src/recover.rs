//! What an earlier life of the runtime left: adopted, finished or undone.
//!
//! The folders are the truth. A sandbox whose record says `Creating` or `Removing`, and one of another boot, is taken
//! down; one that is live is adopted with its shim, or marked NotReady without. What belongs to nobody goes: shims,
//! namespaces, attachments, mounts, cgroups, snapshots, half-written files. A record that can't be understood is set
//! aside and costs its own sandbox or container, never another's.
//!
//! The order: first everything is read and every shim asked, then what nobody owns is ended, then each container is judged
//! by what its shim said, then what is not wanted is taken down. Shims are listened to last: their news wait, so that each
//! finds the container that it is about.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use berth_cri_core::compile::NamespaceScope;
use berth_cri_core::ids;
use berth_cri_core::state::{ContainerState, Moved, SandboxState, Stamped};
use berth_effect::record::{self, TEMPORARY_PREFIX};
use berth_plan::message::{Held, Request, Target};
use berth_sys::signal::SIGKILL;
use futures_util::future::join_all;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::container::Container;
use crate::network::pinned;
use crate::records::{ContainerRecord, LIMIT, Phase, SandboxRecord};
use crate::rpc::run_pod_sandbox::kept;
use crate::runtime::Runtime;
use crate::sandbox::Sandbox;
use crate::shim::{Greeting, News, Shim, ShimError};
use crate::tasks::blocking;
use crate::{OpenError, exits, facts, teardown};

/// How long a plugin that an earlier life exec'd may take to end.
const PLUGINS: Duration = Duration::from_secs(240);
/// How long a shim that lives is tried to be reached.
const REACH: Duration = Duration::from_secs(60);
/// Between two attempts to reach one.
const PAUSE: Duration = Duration::from_millis(200);
/// Before what could not be taken down is tried again for the first time, and the longest time between two attempts.
const AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));

/// The live sandboxes whose shims answered.
type Adopted = BTreeMap<String, Adoption>;

struct Adoption {
    sandbox: Arc<Sandbox>,
    held: Vec<Held>,
    news: mpsc::UnboundedReceiver<News>,
}

/// What a shim says that it holds, and what it says from then on.
type Greeted = (Vec<Held>, mpsc::UnboundedReceiver<News>);

/// Sandboxes that are to be adopted.
type Live = Vec<(SandboxRecord, SandboxState)>;

/// Sandboxes to be taken down, with their records where these can be understood.
type Undo = BTreeMap<String, Option<SandboxRecord>>;

pub(crate) async fn recover(runtime: &Arc<Runtime>) -> Result<(), OpenError> {
    let running = runtime.places.running_plugins();
    berth_cni::wait_for_orphans(&running, PLUGINS).map_err(OpenError::io("wait for plugins in", &running))?;
    let mut stray = shim_processes(&runtime.places.sandboxes());
    let (live, undo) = sandboxes(runtime)?;
    let mut adopted = Adopted::new();
    // All at once: one that hangs takes its time.
    for (sandbox, shim) in join_all(live.into_iter().map(|(record, state)| adopt(runtime, record, state))).await {
        if let Some((held, news)) = shim {
            stray.remove(&sandbox.id);
            adopted.insert(sandbox.id.clone(), Adoption { sandbox: Arc::clone(&sandbox), held, news });
        }
        runtime.world().insert_sandbox(sandbox);
    }
    end_shims(stray.values().flatten());
    containers(runtime, &adopted, &undo)?;
    let mut left = Vec::new();
    let mut unfinished = Vec::new();
    for (id, record) in undo {
        tracing::info!(sandbox = id, "a sandbox that was not finished is taken down");
        let made = record.as_ref().map_or(&[][..], |record| &record.made_cgroups);
        if let Err(error) = teardown::dismantle(runtime, &id, made) {
            tracing::error!(sandbox = id, error, "a left-over sandbox can't be taken down yet");
            match record {
                Some(record) => unfinished.push((record, error)),
                None => left.push(id),
            }
        }
    }
    finish(runtime, &adopted).await;
    for (record, error) in unfinished {
        kept(runtime, record, &format!("it could not be taken down: {error}"));
    }
    left.extend(orphans(runtime));
    for Adoption { sandbox, news, .. } in adopted.into_values() {
        tokio::spawn(exits::watch(Arc::downgrade(runtime), Arc::downgrade(&sandbox), news));
    }
    if !left.is_empty() {
        tokio::spawn(take_down_later(Arc::downgrade(runtime), left));
    }
    Ok(())
}

/// Every sandbox, judged by its record: those that are live, and those to be taken down.
fn sandboxes(runtime: &Runtime) -> Result<(Live, Undo), OpenError> {
    let (mut live, mut undo) = (Live::new(), Undo::new());
    for id in folders(&runtime.places.sandboxes())? {
        clean_temporaries(&runtime.places.sandbox(&id));
        let stamped = load::<SandboxRecord>(&runtime.places.sandbox_record(&id));
        match stamped.filter(|stamped| stamped.record.id == id) {
            Some(Stamped { boot_id, record, .. }) => match record.phase.clone() {
                Phase::Live(state) if boot_id == runtime.boot_id => live.push((record, state)),
                _ => drop(undo.insert(id, Some(record))),
            },
            None => drop(undo.insert(id, None)),
        }
    }
    Ok((live, undo))
}

/// A live sandbox with what its shim holds and says from then on; `None` where it has none (any more).
async fn adopt(runtime: &Arc<Runtime>, record: SandboxRecord, state: SandboxState) -> (Arc<Sandbox>, Option<Greeted>) {
    let SandboxState::Ready { shim: pid, shim_started, .. } = state else {
        return (Arc::new(Sandbox::new(record, state, None)), None);
    };
    let folder = runtime.places.sandbox(&record.id);
    let begun = Instant::now();
    loop {
        match Shim::connect(&folder).await {
            Ok((shim, Greeting { sandbox_ready: true, containers, .. }, news))
                if (shim.pid, shim.started) == (pid, shim_started) =>
            {
                return (Arc::new(Sandbox::new(record, state, Some(shim))), Some((containers, news)));
            }
            Ok((shim, ..)) => {
                tracing::error!(sandbox = record.id, pid = shim.pid, "the shim is not the sandbox's");
                break;
            }
            // No descriptors, no memory: that is no reason to end a pod whose shim is well.
            Err(error @ (ShimError::Io(_) | ShimError::Broken))
                if begun.elapsed() < REACH && facts::start_time(pid) == Some(shim_started) =>
            {
                tracing::warn!(sandbox = record.id, pid, %error, "the sandbox's shim is not reached yet");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                tracing::warn!(sandbox = record.id, %error, "the sandbox's shim is gone");
                break;
            }
        }
    }
    (Arc::new(Sandbox::new(record, state, None)), None)
}

/// Ends shims of nobody.
fn end_shims<'a>(pids: impl Iterator<Item = &'a i32>) {
    let mut ending = Vec::new();
    for pid in pids {
        tracing::warn!(pid, "a shim of no sandbox is ended");
        if let Ok(process) = berth_sys::pidfd::PidFd::open(*pid) {
            let _ = process.kill();
            ending.push(process);
        }
    }
    for process in ending {
        let _ = process.has_ended(2000);
    }
}

/// Tries again, more and more seldom, to take down what nobody else can ask for: it is in no list. The node's network may
/// have come up meanwhile, without which its plugins fail.
async fn take_down_later(runtime: Weak<Runtime>, mut left: Vec<String>) {
    let (mut pause, longest) = AGAIN;
    while !left.is_empty() {
        tokio::time::sleep(pause).await;
        pause = longest.min(pause * 2);
        let Some(runtime) = runtime.upgrade() else { return };
        let ids = std::mem::take(&mut left);
        let work = ids.clone();
        let tried = blocking(move || {
            let still = |id: &String| {
                let outcome = teardown::dismantle(&runtime, id, &[]);
                outcome.inspect_err(|error| tracing::warn!(sandbox = id, error, "left-overs are still there")).is_err()
            };
            work.into_iter().filter(still).collect()
        });
        left = tried.await.unwrap_or(ids);
    }
}

/// Loads every container's record; those of sandboxes that are taken down are removed, as far as their processes, or kept
/// as ended.
fn containers(runtime: &Arc<Runtime>, adopted: &Adopted, undo: &Undo) -> Result<(), OpenError> {
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
        let alive = adopted.get(&record.sandbox).is_some_and(|adoption| {
            adoption.held.iter().any(|held| matches!(held, Held::Running { container, .. } if *container == id))
        });
        let removed = undo.contains_key(&record.sandbox);
        let exit = load::<ContainerState>(&runtime.places.container_exit(&id)).map(|exit| exit.record);
        // An end that nobody has taken note of yet: its cgroup still tells whether it was for memory, and goes when it
        // is settled.
        let unread = !removed && exit.is_none() && runtime.places.exit(&record.sandbox, &id).exists();
        if boot_id == runtime.boot_id && !alive && !unread {
            exits::end_container(runtime, &record);
        }
        if removed && boot_id == runtime.boot_id {
            remove_remains(runtime, &record.sandbox, &id);
            continue;
        }
        // Of what runs the shim knows when it began; of what ran before a restart of the machine, this file alone.
        let restarted = boot_id != runtime.boot_id;
        let begun = if restarted { load::<ContainerState>(&runtime.places.container_start(&id)) } else { None };
        let state = exit.or(begun.map(|begun| begun.record)).unwrap_or(ContainerState::Created);
        let container = Container::new(record, state);
        if restarted {
            ended(runtime, &container);
        }
        runtime.world().insert_container(container);
    }
    Ok(())
}

/// A container that the machine's restart has ended, which is written down once.
fn ended(runtime: &Runtime, container: &Container) {
    if container.transition(|state| state.after_reboot(berth_sys::process::now())) == Moved::Now {
        exits::write_exit(runtime, container);
    }
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
            Some(adoption) => settle_adopted(runtime, &sandbox, &adoption.held).await,
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
            ended(runtime, &container);
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
                // It may have ended since the shim said so.
                if !exits::settle_by_record(runtime, &container) {
                    let _ = container.transition(|state| state.started(*pid, *started_at));
                }
            }
            (Ok(container), Held::Exited { exit, .. }) => exits::exited(runtime, &container, exit),
            (Err(_), _) => {
                tracing::warn!(container = id, "a container without a record is ended");
                if let Some(shim) = sandbox.shim() {
                    let kill = Request::Signal { target: Target::Container(id.clone()), signal: SIGKILL };
                    let _ = shim.order(kill, &[]).await;
                    let _ = shim.order(Request::Forget { container: id.clone() }, &[]).await;
                }
            }
        }
    }
}

/// Removes what no sandbox owns; returns whose network could not be taken down.
fn orphans(runtime: &Runtime) -> Vec<String> {
    let known: BTreeSet<String> = runtime.world().sandboxes.keys().cloned().collect();
    let mut left = Vec::new();
    for id in pinned(&runtime.places) {
        if !known.contains(&id)
            && let Err(error) = runtime.network.detach(&id, &runtime.places.namespace(&id))
        {
            tracing::error!(sandbox = id, %error, "a left-over network namespace can't be removed yet");
            left.push(id);
        }
    }
    let live: Vec<String> = known.iter().cloned().collect();
    left.extend(runtime.network.collect(&live, &runtime.places));
    left.sort();
    left.dedup();
    let parent = runtime.config.cgroup_parent.trim_end_matches('/').to_owned();
    for name in runtime.cgroups.children(&parent) {
        let owner = name.strip_prefix("shim-").or_else(|| name.strip_prefix("pod-"));
        if owner.is_some_and(|owner| ids::is_id(owner) && !known.contains(owner)) {
            exits::end_cgroup(runtime, &format!("{parent}/{name}"));
        }
    }
    runtime.tidy_cgroups();
    left
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
