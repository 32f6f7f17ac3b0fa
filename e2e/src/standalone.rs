//! `berth standalone` under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::daemon::Daemon;
use crate::leak::Folders;
use crate::{command, paths, wait};

/// How long a run may take for one step on a busy 2-core machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The runtime's volatile state; in a house it is the scenario's own.
const STATE: &str = "/run/berth";

/// The folders of a standalone node, which outlive its runs.
#[derive(Debug, Clone)]
pub struct Home {
    dir: PathBuf,
}

/// One run of the program.
#[derive(Debug)]
pub struct Run {
    daemon: Daemon,
}

impl Home {
    /// Folders below `dir`, which must exist.
    pub fn new(dir: &Path) -> Result<Self> {
        let home = Self { dir: dir.to_owned() };
        fs::create_dir_all(home.manifests())?;
        Ok(home)
    }

    /// Where manifests are put.
    pub fn manifests(&self) -> PathBuf {
        self.dir.join("manifests")
    }

    /// What both outputs of all runs have said.
    pub fn log(&self) -> PathBuf {
        self.dir.join("standalone.log")
    }

    /// Removes everything that runs have left in the durable folders.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn forget(&self) -> Result<()> {
        for folder in [self.dir.join("node"), PathBuf::from(STATE)] {
            if folder.exists() {
                fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
            }
        }
        Ok(())
    }

    /// The folders that the leak check looks into.
    pub fn folders(&self) -> Folders {
        Folders::new(&[&self.dir.join("node")])
    }

    /// Starts the program with these variables in its environment.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(&self, environment: &[(&str, String)]) -> Result<Run> {
        let node = self.dir.join("node");
        let mut command = Command::new(paths::berth("berth"));
        command
            .arg("standalone")
            .arg(self.manifests())
            .arg("--root")
            .arg(node.join("root"))
            .args(["--state", STATE])
            .arg("--root-dir")
            .arg(node.join("agent"))
            .arg("--pod-logs-dir")
            .arg(node.join("logs"))
            .envs(environment.iter().map(|(name, value)| (*name, value.as_str())));
        Ok(Run { daemon: Daemon::start("berth standalone", &mut command, &self.log())? })
    }
}

impl Run {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// Waits until the program has said `text` in this run or has ended: `None` then means said.
    ///
    /// # Errors
    /// Neither happens.
    pub fn await_said(&mut self, text: &str) -> Result<Option<ExitStatus>> {
        self.await_line(text, |line| line.contains(text))
    }

    /// Waits until a pod is Ready or the program has ended: `None` then means Ready.
    ///
    /// # Errors
    /// Neither happens.
    pub fn await_ready_or_end(&mut self) -> Result<Option<ExitStatus>> {
        // A pod's line: its name, then its state.
        self.await_line("NAME Ready", |line| line.split_whitespace().nth(1) == Some("Ready"))
    }

    fn await_line(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<Option<ExitStatus>> {
        let mut ended = None;
        wait::until_true(&format!("berth standalone says {what:?}"), PATIENCE, || {
            ended = self.daemon.wait(Duration::ZERO)?;
            Ok(ended.is_some() || self.words()?.lines().any(&wanted))
        })
        .with_context(|| self.last_words())?;
        Ok(ended)
    }

    /// What the program has said in this run.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn words(&self) -> Result<String> {
        self.daemon.words()
    }

    /// Waits until a pod is Ready.
    ///
    /// # Errors
    /// It ended, or does not become Ready.
    pub fn await_ready(&mut self) -> Result<()> {
        match self.await_ready_or_end()? {
            None => Ok(()),
            Some(status) => bail!("it ended before a pod was Ready: {status}\n{}", self.last_words()),
        }
    }

    /// Ctrl-C. The program may have ended already.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn interrupt(&self) -> Result<()> {
        self.daemon.signal(Signal::SIGINT)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// It does not end.
    pub fn await_end(&mut self) -> Result<ExitStatus> {
        let status = self.daemon.wait(PATIENCE)?;
        status.with_context(|| format!("it does not end\n{}", self.last_words()))
    }

    /// Ctrl-C, and an end with status 0.
    ///
    /// # Errors
    /// Another end, or none.
    pub fn stop(mut self) -> Result<()> {
        self.interrupt()?;
        let status = self.await_end()?;
        if !status.success() {
            bail!("it ended with {status}\n{}", self.last_words());
        }
        Ok(())
    }

    /// The end of the log, for an error.
    pub fn last_words(&self) -> String {
        format!("the end of its log:\n{}", command::tail_of(self.daemon.log()))
    }
}
