//! `berth cri` under test, and a client of any CRI runtime.

mod client;
pub(crate) mod config;

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::daemon::Daemon;
use crate::{cni, wait};
pub(crate) use client::Client;

/// The runtime's volatile state; in a house it is the scenario's own.
pub(crate) const STATE: &str = "/run/berth";
/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running `berth cri` with a bridge network. Dropping it stops it; its containers run on.
#[derive(Debug)]
pub(crate) struct Cri {
    daemon: Daemon,
    socket: PathBuf,
}

impl Cri {
    /// Starts the program on `dir`, which may be that of an earlier one.
    pub(crate) fn start(program: &Path, dir: &Path) -> Result<Self> {
        let conf = dir.join("net.d");
        fs::create_dir_all(&conf)?;
        fs::write(conf.join("10-berth.conflist"), cni::network("berth-e2e0", "10.89.0.0/16"))?;
        let socket = dir.join("cri.sock");
        let mut command = Command::new(program);
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
