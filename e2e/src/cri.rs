//! `berth cri` under test, and a client of any CRI runtime.

mod client;
pub(crate) mod config;
mod undecoded;

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::daemon::Daemon;
use crate::{cni, paths, wait};
pub(crate) use client::{Client, Sandbox};

/// The runtime's volatile state; in a house it is the scenario's own.
pub(crate) const STATE: &str = "/run/berth";
/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a `berth cri` is started.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    pub(crate) program: PathBuf,
    /// Images, records and the log; may be that of an earlier one.
    pub(crate) dir: &'a Path,
    pub(crate) socket: PathBuf,
    /// The CNI configuration of its pods; `None` where somebody else brings a network.
    pub(crate) network: Option<String>,
    pub(crate) log_level: &'a str,
    /// Where its registries' mirrors are named.
    pub(crate) registries: Option<&'a Path>,
    /// Its configuration file.
    pub(crate) config: Option<&'a Path>,
}

impl<'a> Start<'a> {
    /// The program under test in `dir`, with a bridge network.
    pub(crate) fn new(dir: &'a Path) -> Self {
        Self {
            program: paths::berth("berth"),
            dir,
            socket: dir.join("cri.sock"),
            network: Some(cni::network("berth-e2e0", "10.89.0.0/16")),
            log_level: "warn",
            registries: None,
            config: None,
        }
    }
}

/// A running `berth cri`. Dropping it stops it; its containers run on.
#[derive(Debug)]
pub(crate) struct Cri {
    daemon: Daemon,
    socket: PathBuf,
}

impl Cri {
    /// Starts it and waits until it listens.
    pub(crate) fn start(start: Start<'_>) -> Result<Self> {
        let Start { program, dir, socket, network, log_level, registries, config } = start;
        fs::create_dir_all(dir)?;
        let mut command = Command::new(program);
        command
            .arg("cri")
            .arg("--listen")
            .arg(format!("unix://{}", socket.display()))
            .arg("--root")
            .arg(dir.join("root"))
            .args(["--state", STATE, "--log-level", log_level]);
        if let Some(network) = network {
            let conf = dir.join("net.d");
            fs::create_dir_all(&conf)?;
            fs::write(conf.join("10-pods.conflist"), network)?;
            command.arg("--cni-conf-dir").arg(conf);
        }
        for (flag, path) in [("--registry-config-dir", registries), ("--runtime-config", config)] {
            if let Some(path) = path {
                command.arg(flag).arg(path);
            }
        }
        let mut daemon = Daemon::start("berth cri", &mut command, &dir.join("cri.log"))?;
        wait::until_true("berth cri listens", PATIENCE, || Ok(UnixStream::connect(&socket).is_ok()))
            .map_err(|error| daemon.check().err().unwrap_or(error))?;
        Ok(Self { daemon, socket })
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// Fails when it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.daemon.check()
    }

    /// SIGKILL.
    pub(crate) fn kill(self) -> Result<()> {
        self.daemon.kill()
    }

    /// SIGTERM, upon which it finishes what it has begun. Fails when a call of its life ended in a panic.
    pub(crate) fn stop(self) -> Result<ExitStatus> {
        let words = self.daemon.words()?;
        let abnormal: Vec<&str> = words
            .lines()
            .filter(|line| ["panicked", "ended abnormally"].iter().any(|word| line.contains(word)))
            .collect();
        ensure!(abnormal.is_empty(), "berth cri says:\n{}", abnormal.join("\n"));
        self.daemon.stop()
    }
}

/// The folders of a `berth cri` in `dir` and of its pods, for the leak check.
pub(crate) fn folders(dir: &Path) -> crate::leak::Folders {
    crate::leak::Folders::new(&[&dir.join("root"), &dir.join("logs")])
}

/// Removes the cgroups of pods, [`config::CGROUP`], which are their caller's: the kubelet's role here.
pub(crate) fn remove_cgroups() {
    fn remove(folder: &Path) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                remove(&entry.path());
            }
        }
        // A cgroup with a process left in it stays, and shows in the leak check.
        let _ = fs::remove_dir(folder);
    }
    let below = config::CGROUP.trim_start_matches('/');
    remove(&Path::new("/sys/fs/cgroup").join(below));
    for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        remove(&hierarchy.path().join(below));
    }
}

/// A runtime for tasks on this thread.
pub(crate) fn executor() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("tokio")
}
