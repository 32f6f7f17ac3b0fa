//! Ending everything in a cgroup, and the cgroup.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use berth_sys::pidfd::PidFd;

use crate::cgroup::Cgroup;
use crate::error::CgroupError;
use crate::files;

/// How long removal waits for processes to be gone: killing is quick unless one hangs in the kernel.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often processes are listed and killed: each round ends those that were forked during the one before.
const ROUNDS: usize = 64;

impl Cgroup {
    /// Sends SIGKILL to every process in it and in those below, also to what they fork meanwhile: `cgroup.kill`
    /// (Linux 5.14) where there is a v2 tree, and freezing, killing and thawing in the v1 hierarchies. It returns once
    /// all are told, not once they are gone. A cgroup that is not there is fine.
    ///
    /// # Errors
    /// When processes keep appearing.
    pub fn kill(&self) -> Result<(), CgroupError> {
        if let Some(unified) = &self.host.inner.unified {
            files::write_if_there(&self.below(&unified.path), "cgroup.kill", "1")?;
        }
        if self.procs().is_empty() {
            return Ok(());
        }
        let freezer = self.controller("freezer");
        if let Some(freezer) = &freezer {
            // What is frozen forks nothing. A cgroup that can't be frozen is killed all the same.
            let _ = files::write(freezer, "freezer.state", "FROZEN");
        }
        let killed = self.kill_listed();
        if let Some(freezer) = &freezer {
            // Also in those below, which a container may have made and frozen: what is frozen does not die.
            for folder in files::descendants(freezer).iter().chain([freezer]) {
                let _ = files::write(folder, "freezer.state", "THAWED");
            }
        }
        killed
    }

    fn kill_listed(&self) -> Result<(), CgroupError> {
        let mut told: Vec<i32> = Vec::new();
        for _ in 0..ROUNDS {
            let fresh: Vec<i32> = self.procs().into_iter().filter(|pid| !told.contains(pid)).collect();
            if fresh.is_empty() {
                return Ok(());
            }
            let opened: Vec<(i32, PidFd)> =
                fresh.iter().filter_map(|pid| Some((*pid, PidFd::open(*pid).ok()?))).collect();
            // A number that is still listed after its descriptor was opened is that of the process meant.
            let still = self.procs();
            for (pid, process) in opened.iter().filter(|(pid, _)| still.contains(pid)) {
                let signalled = process.kill();
                signalled.map_err(CgroupError::io(format!("kill process {pid} of"), Path::new(&self.path)))?;
            }
            told = fresh.into_iter().chain(told).collect();
        }
        Err(CgroupError::Busy { path: self.path.clone(), waited_ms: 0, pids: self.procs() })
    }

    /// Removes it with everything below, deepest first; processes that are dying are waited for up to 5 s. One that is
    /// not there is fine.
    ///
    /// # Errors
    /// [`CgroupError::Busy`] when processes stay.
    pub fn remove(&self) -> Result<(), CgroupError> {
        if !self.exists() {
            return Ok(());
        }
        berth_effect::run("cgroup-remove", || {
            let start = Instant::now();
            let mut pause = Duration::from_micros(200);
            loop {
                match self.remove_once() {
                    Err(error) if error.errno() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
                        if start.elapsed() > PATIENCE {
                            let waited_ms = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
                            return Err(CgroupError::Busy { path: self.path.clone(), waited_ms, pids: self.procs() });
                        }
                        // v1 tells nobody when a cgroup becomes empty.
                        thread::sleep(pause);
                        pause = (pause * 2).min(Duration::from_millis(20));
                    }
                    other => return other,
                }
            }
        })
    }

    /// Removes it where it holds neither processes nor cgroups: whether nothing is left of it.
    pub fn remove_if_empty(&self) -> bool {
        berth_effect::run("cgroup-remove-empty", || {
            self.folders().fold(true, |gone, folder| {
                let outcome = fs::remove_dir(&folder);
                gone && outcome.map_or_else(|error| error.kind() == io::ErrorKind::NotFound, |()| true)
            })
        })
    }

    fn remove_once(&self) -> Result<(), CgroupError> {
        for root in self.folders() {
            for folder in files::descendants(&root).iter().chain([&root]) {
                match fs::remove_dir(folder) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    other => other.map_err(CgroupError::io("remove", folder))?,
                }
            }
        }
        Ok(())
    }
}
