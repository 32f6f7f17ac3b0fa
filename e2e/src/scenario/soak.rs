//! Thousands of probes, hundreds of pods' lives and thousands of clients that die in the middle of an attach or an exec:
//! what `berth cri` and its shims hold of the machine does not grow.

mod dying;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;

use crate::cri::{self, Client, Cri, Start, config};
use crate::leak::Picture;
use crate::registry::{self, Registry};
use crate::usage::{self, Usage};
use crate::{command, paths};
use dying::Hosts;

const PROBES: usize = 2000;
const PODS: usize = 300;
const CLIENTS: usize = 10_000;
/// Pods that live all the time: two that clients attach to, the others are probed.
const LONG_LIVED: usize = 6;
/// What clients attach to: one in a terminal, and one with pipes, which says a lot. Both fork nothing.
const LISTENERS: [&str; 2] = [
    "while :; do read -r line && echo got $line; done",
    "while :; do read -r line && for word in 1 2 3 4 5 6 7 8 9; do echo got $line; echo and $word >&2; done; done",
];
/// Probes, and lives, at a time.
const AT_ONCE: usize = 8;
/// Before the first look, so many parts of a hundred of all that is done.
const WARM_UP: usize = 15;
/// Numbers of the pods that live long.
const FIRST_LONG: usize = 9000;

/// What may be held more at the end than after the warm-up: by `berth cri`, and by each shim or its log writer.
const RUNTIME: Usage = Usage { descriptors: 0, threads: 0, anonymous: 3072, private: 0 };
const SHIM: Usage = Usage { descriptors: 0, threads: 0, anonymous: 48, private: 0 };
/// How long what is idle may take to be given back: threads for blocking work wait 10 s for more.
const SETTLE: Duration = Duration::from_secs(40);

/// What was held at one moment at rest.
struct Held {
    runtime: Usage,
    shims: BTreeMap<u32, Usage>,
    /// Everything that runs in the house: what was exec'd must not be left.
    processes: usize,
}

/// Those that live all the time.
struct Stage {
    probed: Vec<String>,
    hosts: Hosts,
}

/// Everything of the scenario that has a place.
struct Scene {
    dir: PathBuf,
    cri: Cri,
    client: Client,
    start: Instant,
    /// How many pods have lived.
    lived: usize,
}

/// Plays it, `times` as much as usual; call it in a house, on a single thread.
///
/// # Errors
/// What grows, or what is left.
pub fn play(times: usize) -> Result<()> {
    let dir = paths::scratch("soak")?;
    let registry = Registry::start(&dir.join("registry"), "127.0.0.1:5000")?;
    registry.push_standard()?;
    let outcome = cri::executor()?.block_on(Box::pin(tell(&dir, &registry.name(registry::BUSYBOX), times.max(1))));
    if outcome.is_err() {
        eprintln!("the end of berth cri's log:\n{}", command::tail_of(&dir.join("cri.log")));
    }
    outcome?;
    registry.stop()?;
    fs::remove_dir_all(dir)?;
    Ok(())
}

async fn tell(dir: &Path, image: &str, times: usize) -> Result<()> {
    let cri = Cri::start(Start::new(dir))?;
    let client = Client::connect(cri.socket(), image, &dir.join("logs")).await?;
    let mut scene = Scene { dir: dir.to_owned(), cri, client, start: Instant::now(), lived: 0 };
    scene.client.pull().await?;
    scene.pods(AT_ONCE).await?;
    scene.clear()?;
    let folders = cri::folders(dir);
    let before = Picture::take(&folders)?;

    let mut sandboxes = Vec::new();
    let mut probed = Vec::new();
    for number in 0..LONG_LIVED {
        let (sandbox, _) = scene.client.run_sandbox(FIRST_LONG + number).await?;
        if number >= LISTENERS.len() {
            probed.push(scene.client.start_container(&sandbox, config::UNTIL_TERM).await?.0);
        }
        sandboxes.push(sandbox);
    }
    let [terminal, pipes] = LISTENERS;
    let hosts = Hosts {
        terminal: scene.client.start_listener(&sandboxes[0], true, terminal).await?,
        pipes: scene.client.start_listener(&sandboxes[1], false, pipes).await?,
    };
    let stage = Stage { probed, hosts };
    scene.load(&stage, WARM_UP, fastrand::u64(..)).await?;
    let first = scene.look(None).await?;
    scene.say(&format!("after the warm-up: {}", first.describe()));
    for round in 1..=times {
        let seed = fastrand::u64(..1 << 32);
        scene.load(&stage, 100, seed).await?;
        let seen = scene.look(Some(&first)).await?;
        scene.say(&format!(
            "{} probes, {} pods and {} dying clients (seed {seed}) later: {}",
            round * PROBES,
            round * PODS,
            round * CLIENTS,
            seen.describe()
        ));
    }

    for sandbox in &sandboxes {
        scene.client.remove_sandbox(sandbox).await?;
    }
    scene.clear()?;
    before.await_equal(&folders, &[])?;
    scene.say("nothing is left behind");
    scene.cri.stop()?;
    Ok(())
}

impl Scene {
    fn say(&self, what: &str) {
        println!("{:>6.1} s  soak: {what}", self.start.elapsed().as_secs_f64());
    }

    /// One kind of load after the other, so many parts of a hundred of each.
    async fn load(&mut self, stage: &Stage, part: usize, seed: u64) -> Result<()> {
        self.probes(&stage.probed, PROBES * part / 100).await?;
        self.pods(PODS * part / 100).await?;
        dying::play(&self.client, &stage.hosts, CLIENTS * part / 100, seed).await
    }

    async fn probes(&self, containers: &[String], count: usize) -> Result<()> {
        let mut probing = JoinSet::new();
        for worker in 0..AT_ONCE {
            let mut client = self.client.clone();
            let container = containers[worker % containers.len()].clone();
            probing.spawn(async move {
                for _ in 0..count.div_ceil(AT_ONCE) {
                    client.exec_true(&container).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(ended) = probing.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// Lets so many pods live, a few at a time.
    async fn pods(&mut self, count: usize) -> Result<()> {
        let mut living = JoinSet::new();
        for _ in 0..count {
            if living.len() >= AT_ONCE
                && let Some(ended) = living.join_next().await
            {
                ended??;
            }
            self.lived += 1;
            // Numbers come back: a host port is one of a few thousand.
            living.spawn(life(self.client.clone(), self.lived % 1000));
        }
        while let Some(ended) = living.join_next().await {
            ended??;
        }
        self.clear()
    }

    /// What is the kubelet's own: the pods' cgroups and logs. Those of pods that live stay.
    fn clear(&self) -> Result<()> {
        cri::remove_cgroups();
        let long: Vec<String> = (0..LONG_LIVED).map(|number| config::uid(FIRST_LONG + number)).collect();
        let alive = !usage::shims()?.is_empty();
        for entry in fs::read_dir(self.dir.join("logs"))? {
            let entry = entry?;
            if !alive || !long.iter().any(|uid| entry.file_name().to_str() == Some(uid)) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// What is held at rest. With what was held before: waits until no more than that is, within the tolerances.
    async fn look(&self, before: Option<&Held>) -> Result<Held> {
        let start = Instant::now();
        let mut last = Usage::default();
        loop {
            let held =
                Held { runtime: Usage::of(self.cri.pid())?, shims: usage::shims()?, processes: usage::processes()? };
            let grown = before.map_or(Vec::new(), |before| before.growth(&held));
            // At rest, threads that have had nothing to do have ended.
            let rests = held.runtime.threads == last.threads && held.runtime.descriptors == last.descriptors;
            if rests && grown.is_empty() {
                return Ok(held);
            }
            ensure!(start.elapsed() < SETTLE, "it grows: {}", grown.join("; "));
            last = held.runtime;
            tokio::time::sleep(Duration::from_secs(12)).await;
        }
    }
}

/// A pod of one container that is probed once.
async fn life(mut client: Client, number: usize) -> Result<()> {
    let (sandbox, _) = client.run_sandbox(number).await?;
    let (container, _) = client.start_container(&sandbox, config::UNTIL_TERM).await?;
    client.exec_true(&container).await?;
    client.stop_container(&container).await?;
    client.remove_container(&container).await?;
    client.remove_sandbox(&sandbox).await.map(drop).with_context(|| format!("pod {number}"))
}

impl Held {
    fn describe(&self) -> String {
        let describe = |usage: &Usage| {
            let Usage { descriptors, threads, anonymous, .. } = usage;
            format!("{descriptors} descriptors, {threads} threads, {anonymous} KiB allocated")
        };
        let largest = self.shims.values().max_by_key(|shim| shim.anonymous).copied().unwrap_or_default();
        format!(
            "{} processes; berth cri {}; {} shim processes, the largest {}",
            self.processes,
            describe(&self.runtime),
            self.shims.len(),
            describe(&largest)
        )
    }

    /// What `later` holds more than the tolerances allow.
    fn growth(&self, later: &Self) -> Vec<String> {
        let mut lines = growth("berth cri", &self.runtime, &later.runtime, &RUNTIME);
        for (pid, before) in &self.shims {
            match later.shims.get(pid) {
                Some(after) => lines.extend(growth(&format!("shim {pid}"), before, after, &SHIM)),
                None => lines.push(format!("shim {pid} is gone")),
            }
        }
        if later.shims.len() > self.shims.len() {
            lines.push(format!("{} shim processes became {}", self.shims.len(), later.shims.len()));
        }
        if later.processes > self.processes {
            lines.push(format!("{} processes became {}", self.processes, later.processes));
        }
        lines
    }
}

fn growth(who: &str, before: &Usage, after: &Usage, more: &Usage) -> Vec<String> {
    let of = |usage: &Usage| [usage.descriptors, usage.threads, usage.anonymous];
    let names = ["descriptors", "threads", "KiB of memory"];
    let figures = names.into_iter().zip(of(before)).zip(of(after)).zip(of(more));
    figures
        .filter(|(((_, before), after), more)| *after > before + more)
        .map(|(((name, before), after), more)| format!("{who}: {before} {name} became {after} (at most {more} more)"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_beyond_the_tolerance_is_named() {
        let usage = |descriptors, anonymous| Usage { descriptors, threads: 3, anonymous, private: 0 };
        let held = |runtime, shim| Held { runtime, shims: BTreeMap::from([(7, shim)]), processes: 9 };
        let before = held(usage(10, 5000), usage(9, 300));
        assert_eq!(before.growth(&held(usage(9, 8000), usage(9, 340))), Vec::<String>::new());
        let lines = before.growth(&held(usage(11, 9000), usage(9, 400)));
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(lines[0], "berth cri: 10 descriptors became 11 (at most 0 more)");
        let gone = Held { runtime: usage(10, 5000), shims: BTreeMap::new(), processes: 10 };
        assert_eq!(before.growth(&gone), ["shim 7 is gone", "9 processes became 10"]);
    }
}
