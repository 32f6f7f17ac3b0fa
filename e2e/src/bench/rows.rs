//! The rows of the table of bars that a CRI client can measure: R1 to R4, O2, P4's shim, and flushes per pod.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::client::{CGROUP, Client};
use super::figure::Figure;
use super::floor::{self, Floor};
use super::reference::Containerd;
use super::shim::{self, Lives};
use super::table::{self, Row};
use crate::daemon::Daemon;
use crate::registry::{self, Registry};
use crate::{cni, paths, wait};

const ROUNDS: usize = 20;
const EXECS: usize = 3;
const BURST: usize = 50;
/// How many flushes one pod of one container may cost.
const FLUSHES: u64 = 2;
/// Where the measured runtime keeps its sandboxes; a socket's path is short.
const STATE: &str = "/run/berth-bench";
/// KiB of private memory that a shim may have.
const SHIM_KIB: f64 = 512.0;
/// The container's first process has no default action for SIGTERM.
const UNTIL_TERM: &str = "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done";

/// What one runtime took.
#[derive(Debug, Default)]
struct Measured {
    sandbox: Figure,
    burst: Figure,
    start: Figure,
    stop: Figure,
    remove: Figure,
    exec: Figure,
    whole: Figure,
}

/// Measures Berth, the reference and the floor, and prints the rows; as JSON with `json`. Call it in a house, on a
/// single thread.
///
/// # Errors
/// A runtime fails, or flushes more often than it may.
pub fn pod(json: bool) -> Result<()> {
    let floor = floor::measure_floor()?;
    let dir = paths::scratch("bench")?;
    let registry = Registry::start(&dir.join("registry"), "127.0.0.1:5000")?;
    registry.push_standard()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let image = registry.name(registry::BUSYBOX);
    let (ours, lives, shim, flushes) = runtime.block_on(measure_berth(&dir.join("berth"), &image))?;
    let theirs = runtime.block_on(measure_reference(&dir.join("reference"), &registry, &image))?;
    registry.stop()?;
    remove_cgroups();
    fs::remove_dir_all(&dir)?;

    let rows = rows(&ours, &theirs, &lives, &floor, shim);
    if json {
        let mut value = table::json(&rows, &floor);
        value["flushes_per_pod"] = json!(flushes);
        println!("{value:#}");
    } else {
        print!("{}\n{}", table::figures(&floor), table::rows(&rows));
        println!("flushes per pod of one container: {flushes} (at most {FLUSHES})");
    }
    ensure!(flushes <= FLUSHES, "{flushes} flushes per pod");
    Ok(())
}

async fn measure_berth(dir: &Path, image: &str) -> Result<(Measured, Lives, f64, u64)> {
    let (daemon, socket) = start_berth(dir)?;
    let mut client = Client::connect(&socket, image, &dir.join("logs")).await?;
    let measured = Box::pin(measure(&mut client)).await.context("berth")?;
    let shim = Box::pin(shim_memory(&mut client)).await?;
    let flushes = Box::pin(flushes(&mut client, daemon.pid(), dir)).await?;
    drop(client);
    let lives = Box::pin(lives(dir, daemon, &socket, image)).await?;
    Ok((measured, lives, shim, flushes))
}

/// A runtime makes what is measured, another one takes it down.
async fn lives(dir: &Path, daemon: Daemon, socket: &Path, image: &str) -> Result<Lives> {
    let logs = dir.join("logs");
    let mut client = Client::connect(socket, image, &logs).await?;
    let (sandbox, _) = client.run_sandbox(3000).await?;
    let mut containers = Vec::new();
    for attempt in 0..=2 * ROUNDS + 1 {
        containers.push(client.create_container(&sandbox, u32::try_from(attempt)?, &["true"]).await?);
    }
    daemon.kill()?;
    let lives = shim::measure(&Path::new(STATE).join("sandboxes").join(&sandbox.id), &containers)?;
    let (_daemon, socket) = start_berth(dir)?;
    Client::connect(&socket, image, &logs).await?.remove_sandbox(&sandbox).await?;
    Ok(lives)
}

async fn measure_reference(dir: &Path, registry: &Registry, image: &str) -> Result<Measured> {
    let reference = Containerd::start(dir, registry)?;
    let mut client = Client::connect(&reference.socket(), image, &dir.join("logs")).await?;
    Box::pin(measure(&mut client)).await.context("containerd")
}

async fn measure(client: &mut Client) -> Result<Measured> {
    client.pull().await?;
    let mut samples = [const { Vec::new() }; 6];
    let [sandboxes, starts, execs, stops, removes, wholes] = &mut samples;
    for round in 0..=ROUNDS {
        let (sandbox, took_sandbox) = client.run_sandbox(round).await?;
        let (container, took_start) = client.start_container(&sandbox, UNTIL_TERM).await?;
        for _ in 0..EXECS {
            execs.push(client.exec_true(&container).await?);
        }
        let took_stop = client.stop_container(&container).await?;
        client.remove_container(&container).await?;
        let start = Instant::now();
        let (container, _) = client.start_container(&sandbox, "true").await?;
        client.await_exit(&container).await?;
        client.remove_container(&container).await?;
        let took_whole = start.elapsed();
        let took_remove = client.remove_sandbox(&sandbox).await?;
        // The first round warms caches.
        if round > 0 {
            sandboxes.push(took_sandbox);
            starts.push(took_start);
            stops.push(took_stop);
            wholes.push(took_whole);
            removes.push(took_remove);
        }
    }
    let burst = burst(client).await?;
    let [sandbox, start, exec, stop, remove, whole] = samples.map(|samples| Figure::of(&samples));
    Ok(Measured { sandbox, burst, start, stop, remove, exec, whole })
}

/// 50 sandboxes asked for at once; how long each caller waited.
async fn burst(client: &Client) -> Result<Figure> {
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..BURST {
        let mut client = client.clone();
        tasks.spawn(async move {
            let (sandbox, _) = client.run_sandbox(1000 + number).await?;
            anyhow::Ok((sandbox, start.elapsed()))
        });
    }
    let mut waits: Vec<Duration> = Vec::new();
    let mut sandboxes = Vec::new();
    while let Some(done) = tasks.join_next().await {
        let (sandbox, waited) = done??;
        waits.push(waited);
        sandboxes.push(sandbox);
    }
    for sandbox in &sandboxes {
        client.clone().remove_sandbox(sandbox).await?;
    }
    Ok(Figure::of(&waits))
}

fn rows(ours: &Measured, theirs: &Measured, lives: &Lives, floor: &Floor, shim: f64) -> Vec<Row> {
    let against = |id, work, ours: f64, theirs: f64, part: f64| Row {
        id,
        work,
        unit: "ms",
        ours,
        theirs: Some(theirs),
        bar: theirs / part,
    };
    let container = floor.iter().find(|(name, _)| *name == floor::CONTAINER).map_or(0.0, |(_, figure)| figure.median);
    let inside = |work, ours, theirs| Row { id: "O2", work, unit: "ms", ours, theirs, bar: 1.3 * container };
    vec![
        against("R1", "RunPodSandbox", ours.sandbox.median, theirs.sandbox.median, 6.0),
        against("R1", "50 at once: p99", ours.burst.p99, theirs.burst.p99, 4.0),
        against("R2", "Create + StartContainer", ours.start.median, theirs.start.median, 4.0),
        against("R3", "StopContainer", ours.stop.median, theirs.stop.median, 5.0),
        against("R3", "Stop + RemovePodSandbox", ours.remove.median, theirs.remove.median, 5.0),
        against("R4", "ExecSync true", ours.exec.median, theirs.exec.median, 6.0),
        inside("`true` in the shim", lives.unplaced.median, None),
        inside("and placed into its cgroups", lives.placed.median, None),
        inside("and through the CRI, with files", ours.whole.median, Some(theirs.whole.median)),
        Row { id: "P4", work: "shim's private memory", unit: "KiB", ours: shim, theirs: None, bar: SHIM_KIB },
    ]
}

fn start_berth(dir: &Path) -> Result<(Daemon, PathBuf)> {
    let conf = dir.join("net.d");
    fs::create_dir_all(&conf)?;
    fs::write(conf.join("10-bench.conflist"), cni::network("berth-bench0", "10.89.0.0/16"))?;
    let socket = dir.join("cri.sock");
    let mut command = Command::new(paths::berth("berth"));
    command
        .arg("cri")
        .arg("--listen")
        .arg(format!("unix://{}", socket.display()))
        .arg("--root")
        .arg(dir.join("root"))
        .args(["--state", STATE, "--log-level", "warn"])
        .arg("--cni-conf-dir")
        .arg(&conf);
    let mut daemon = Daemon::start("berth cri", &mut command, &dir.join("cri.log"))?;
    wait::until_true("berth cri listens", Duration::from_secs(20), || {
        Ok(std::os::unix::net::UnixStream::connect(&socket).is_ok())
    })
    .map_err(|error| daemon.check().err().unwrap_or(error))?;
    Ok((daemon, socket))
}

/// KiB that only one shim has, with one container running.
async fn shim_memory(client: &mut Client) -> Result<f64> {
    let (sandbox, _) = client.run_sandbox(2000).await?;
    let (container, _) = client.start_container(&sandbox, UNTIL_TERM).await?;
    let memory = fs::read_dir("/proc")?
        .flatten()
        .filter(|entry| {
            fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.trim().starts_with("berth-shim"))
        })
        .filter_map(|entry| fs::read_to_string(entry.path().join("smaps_rollup")).ok())
        .map(|text| private(&text))
        .max()
        .context("no process is called berth-shim")?;
    client.stop_container(&container).await?;
    client.remove_sandbox(&sandbox).await?;
    Ok(f64::from(memory))
}

fn private(rollup: &str) -> u32 {
    rollup
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u32>().ok())
        .sum()
}

/// How many times the runtime asks the disk to flush while one pod of one container comes up.
async fn flushes(client: &mut Client, pid: u32, dir: &Path) -> Result<u64> {
    let log = dir.join("strace.log");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-q", "-e", "trace=fsync,fdatasync,sync,syncfs,sync_file_range", "-o"])
        .arg(&log)
        .args(["-p", &pid.to_string()]);
    let strace = Daemon::start("strace", &mut command, &dir.join("strace.err"))?;
    wait::until_true("strace is attached", Duration::from_secs(10), || {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0")))
    })?;
    let (sandbox, _) = client.run_sandbox(2001).await?;
    let (container, _) = client.start_container(&sandbox, UNTIL_TERM).await?;
    strace.stop()?;
    client.stop_container(&container).await?;
    client.remove_sandbox(&sandbox).await?;
    let text = fs::read_to_string(&log)?;
    Ok(text.lines().filter(|line| line.contains("sync") && !line.contains("resumed")).count() as u64)
}

/// Pods' cgroups are their caller's: the kubelet's role here.
pub(super) fn remove_cgroups() {
    fn remove(folder: &Path) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                remove(&entry.path());
            }
        }
        // A cgroup with a process left in it stays, and shows in the leak check.
        let _ = fs::remove_dir(folder);
    }
    let below = CGROUP.trim_start_matches('/');
    remove(&Path::new("/sys/fs/cgroup").join(below));
    for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        remove(&hierarchy.path().join(below));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_is_clean_and_dirty() {
        assert_eq!(private("Rss: 900 kB\nPrivate_Clean:  12 kB\nPrivate_Dirty: 30 kB\nShared_Clean: 5 kB\n"), 42);
    }
}
