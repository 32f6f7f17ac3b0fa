//! The rows of the table of bars that a CRI client can measure: R1 to R4, O2, P4's shim, ListContainers, and flushes
//! per pod.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::figure::Figure;
use super::floor::{self, Floor};
use super::reference::{Containerd, HANDLERS};
use super::shim::{self, Lives};
use super::table::{self, Row};
use crate::cri::config::UNTIL_TERM;
use crate::cri::{self, Client, Cri, STATE, Start};
use crate::daemon::Daemon;
use crate::registry::{self, Registry};
use crate::{paths, usage, wait};

const ROUNDS: usize = 20;
const EXECS: usize = 3;
const BURST: usize = 50;
/// So many containers are listed, in sandboxes of so many, so often.
const LISTED: usize = 500;
const LISTED_EACH: usize = 100;
const LISTS: usize = 50;
/// Milliseconds that ListContainers may take.
const LIST_BAR: f64 = 10.0;
/// How many flushes one pod of one container may cost.
const FLUSHES: u64 = 2;
/// KiB of private memory that a shim may have.
const SHIM_KIB: f64 = 512.0;

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
    /// Not for each of a reference's handlers: it is the daemon's own.
    list: Option<Figure>,
}

impl Measured {
    fn json(&self) -> Value {
        let mut figures = vec![
            ("RunPodSandbox", self.sandbox),
            ("RunPodSandbox, 50 at once", self.burst),
            ("CreateContainer + StartContainer", self.start),
            ("StopContainer", self.stop),
            ("StopPodSandbox + RemovePodSandbox", self.remove),
            ("ExecSync", self.exec),
            ("a container's whole life", self.whole),
        ];
        figures.extend(self.list.map(|list| ("ListContainers of 500", list)));
        table::named(&figures)
    }
}

/// What is Berth's alone.
#[derive(Debug)]
struct Own {
    lives: Lives,
    /// KiB of private memory of a shim.
    shim: f64,
    /// Per pod of one container.
    flushes: u64,
}

/// Measures Berth, containerd with each of its handlers, and the floor, and prints the rows; as JSON with `json`. Call
/// it in a house, on a single thread.
///
/// # Errors
/// A runtime fails, or flushes more often than it may.
pub fn cri(json: bool) -> Result<()> {
    let floor = floor::measure_floor()?;
    let dir = paths::scratch("bench")?;
    let registry = Registry::start(&dir.join("registry"), "127.0.0.1:5000")?;
    registry.push_standard()?;
    let runtime = cri::executor()?;
    let image = registry.name(registry::BUSYBOX);
    let (ours, own) = runtime.block_on(measure_berth(&dir.join("berth"), &image))?;
    let theirs = runtime.block_on(measure_reference(&dir.join("reference"), &registry, &image))?;
    registry.stop()?;
    cri::remove_cgroups();
    fs::remove_dir_all(&dir)?;

    let rows = rows(&ours, &theirs, &own, &floor);
    let flushes = own.flushes;
    if json {
        let mut value = table::json(&rows, &HANDLERS, &floor);
        value["program"] = json!(paths::measured("berth"));
        value["flushes_per_pod"] = json!(flushes);
        value["measured"] = json!({ "berth": ours.json() });
        for (handler, measured) in HANDLERS.iter().zip(&theirs) {
            value["measured"][*handler] = measured.json();
        }
        println!("{value:#}");
    } else {
        print!("{}\n{}", table::figures(&floor), table::rows(&rows, &HANDLERS));
        println!("flushes per pod of one container: {flushes} (at most {FLUSHES})");
        println!("ours is {}", paths::measured("berth").display());
    }
    ensure!(flushes <= FLUSHES, "{flushes} flushes per pod");
    Ok(())
}

async fn measure_berth(dir: &Path, image: &str) -> Result<(Measured, Own)> {
    // First, before much is removed: an ext4 without a journal (this may be one) looks past each inode that was freed in the
    // last minute when a file is made, which would be all that is measured.
    let logs = dir.join("logs");
    let berth = Cri::start(Start { program: paths::measured("berth"), ..Start::new(dir) })?;
    Client::connect(berth.socket(), image, &logs).await?.pull().await?;
    let lives = Box::pin(lives(dir, berth, image)).await?;
    let berth = Cri::start(Start { program: paths::measured("berth"), ..Start::new(dir) })?;
    let mut client = Client::connect(berth.socket(), image, &logs).await?;
    let mut measured = Box::pin(measure(&mut client)).await.context("berth")?;
    measured.list = Some(Box::pin(list(&mut client)).await?);
    let shim = Box::pin(shim_memory(&mut client)).await?;
    let flushes = Box::pin(flushes(&mut client, berth.pid(), dir)).await?;
    drop(client);
    berth.stop()?;
    Ok((measured, Own { lives, shim, flushes }))
}

/// A runtime makes what is measured, another one takes it down.
async fn lives(dir: &Path, berth: Cri, image: &str) -> Result<Lives> {
    let logs = dir.join("logs");
    let mut client = Client::connect(berth.socket(), image, &logs).await?;
    let (sandbox, _) = client.run_sandbox(3000).await?;
    let mut containers = Vec::new();
    for attempt in 0..=2 * ROUNDS + 1 {
        containers.push(client.create_container(&sandbox, u32::try_from(attempt)?, &["true"]).await?);
    }
    berth.kill()?;
    let lives = shim::measure(&Path::new(STATE).join("sandboxes").join(&sandbox.id), &containers)?;
    let berth = Cri::start(Start { program: paths::measured("berth"), ..Start::new(dir) })?;
    Client::connect(berth.socket(), image, &logs).await?.remove_sandbox(&sandbox).await?;
    berth.stop()?;
    Ok(lives)
}

/// In the order of [`HANDLERS`].
async fn measure_reference(dir: &Path, registry: &Registry, image: &str) -> Result<Vec<Measured>> {
    let reference = Containerd::start(dir, registry)?;
    let client = Client::connect(&reference.socket(), image, &dir.join("logs")).await?;
    let mut all = Vec::new();
    for handler in HANDLERS {
        let mut client = client.clone().with_handler(handler);
        let mut measured =
            Box::pin(measure(&mut client)).await.with_context(|| format!("containerd with {handler}"))?;
        if all.is_empty() {
            measured.list = Some(Box::pin(list(&mut client)).await?);
        }
        all.push(measured);
    }
    Ok(all)
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
    Ok(Measured { sandbox, burst, start, stop, remove, exec, whole, list: None })
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

/// ListContainers of 500, which were created and not started.
async fn list(client: &mut Client) -> Result<Figure> {
    let mut sandboxes = Vec::new();
    for number in 0..LISTED / LISTED_EACH {
        let (sandbox, _) = client.run_sandbox(4000 + number).await?;
        for attempt in 0..LISTED_EACH {
            client.create_container(&sandbox, u32::try_from(attempt)?, &["true"]).await?;
        }
        sandboxes.push(sandbox);
    }
    let mut samples = Vec::new();
    for _ in 0..LISTS {
        let (count, took) = client.list_containers().await?;
        ensure!(count == LISTED, "{count} containers are listed, not {LISTED}");
        samples.push(took);
    }
    for sandbox in &sandboxes {
        client.remove_sandbox(sandbox).await?;
    }
    Ok(Figure::of(&samples))
}

fn rows(ours: &Measured, theirs: &[Measured], own: &Own, floor: &Floor) -> Vec<Row> {
    let median = |of: fn(&Measured) -> Figure| -> (f64, Vec<Option<f64>>) {
        (of(ours).median, theirs.iter().map(|theirs| Some(of(theirs).median)).collect())
    };
    let against = |id, work, of: fn(&Measured) -> Figure, part| {
        let (ours, theirs) = median(of);
        Row::against(id, work, ours, theirs, part)
    };
    let floor_of = |of| floor.iter().find(|(name, _)| *name == of).map_or(0.0, |(_, figure)| figure.median);
    let (container, pod) = (floor_of(floor::CONTAINER), floor_of(floor::POD));
    let none = || vec![None; theirs.len()];
    let inside = |work, ours, theirs| Row { id: "O2", work, unit: "ms", ours, theirs, bar: 1.3 * container };
    let p99 = theirs.iter().map(|theirs| Some(theirs.burst.p99)).collect();
    let (whole, whole_theirs) = median(|measured| measured.whole);
    vec![
        against("R1", "RunPodSandbox", |measured| measured.sandbox, 6.0),
        Row::against("R1", "50 at once: p99", ours.burst.p99, p99, 4.0),
        against("R2", "Create + StartContainer", |measured| measured.start, 4.0),
        against("R3", "StopContainer", |measured| measured.stop, 5.0),
        against("R3", "Stop + RemovePodSandbox", |measured| measured.remove, 5.0),
        against("R4", "ExecSync true", |measured| measured.exec, 6.0),
        inside("`true` in the shim", own.lives.unplaced.median, none()),
        inside("placed into its cgroups", own.lives.placed.median, none()),
        Row { bar: 1.3 * pod, ..inside("`true`, by a pod's floor", own.lives.unplaced.median, none()) },
        inside("through the CRI, with files", whole, whole_theirs),
        Row {
            id: "",
            work: "ListContainers of 500",
            unit: "ms",
            ours: ours.list.map_or(0.0, |list| list.median),
            theirs: theirs.iter().map(|theirs| theirs.list.map(|list| list.median)).collect(),
            bar: LIST_BAR,
        },
        Row { id: "P4", work: "private memory of a shim", unit: "KiB", ours: own.shim, theirs: none(), bar: SHIM_KIB },
    ]
}

/// KiB that only one shim has, with one container running.
async fn shim_memory(client: &mut Client) -> Result<f64> {
    let (sandbox, _) = client.run_sandbox(2000).await?;
    let (container, _) = client.start_container(&sandbox, UNTIL_TERM).await?;
    let memory = usage::shims()?.values().map(|shim| shim.private).max().context("no process is called berth-shim")?;
    client.stop_container(&container).await?;
    client.remove_sandbox(&sandbox).await?;
    Ok(f64::from(u32::try_from(memory)?))
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
