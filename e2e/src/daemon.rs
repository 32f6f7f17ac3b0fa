//! A program that runs beside the test until it is told to stop.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::command;

/// How long a program may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(20);

/// A started program. Dropping it ends it.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
    /// How long the log was when the program was started.
    before: u64,
}

impl Daemon {
    /// Starts a program in a process group of its own, its output appended to `log`.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = File::options().create(true).append(true).open(log)?;
        let before = file.metadata()?.len();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", command.get_program().to_string_lossy()))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), before })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file that its output goes to.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Lets the program run on without an owner and returns its process id.
    pub fn detach(self) -> u32 {
        let pid = self.child.id();
        std::mem::forget(self);
        pid
    }

    /// What the program has written so far.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn words(&self) -> Result<String> {
        let mut file = File::open(&self.log)?;
        file.seek(SeekFrom::Start(self.before))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Fails when the program has ended, with the end of its log.
    ///
    /// # Errors
    /// It has ended.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            anyhow::bail!("{} ended: {status}; the end of its log:\n{}", self.name, command::tail_of(&self.log));
        }
        Ok(())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The program is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("process id")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// Waits for the end of the program; `None` when it still runs after `limit`.
    ///
    /// # Errors
    /// The kernel refuses the wait.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        wait_child(&mut self.child, limit)
    }

    /// SIGKILL, as the kernel's OOM killer or an operator would, and waits for the end.
    ///
    /// # Errors
    /// The program is gone already.
    pub fn kill(mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM; waits; SIGKILL when the program has not ended after 20 s, which is an error.
    ///
    /// # Errors
    /// The program did not end by itself.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.end()
    }

    fn end(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        if let Some(status) = self.wait(GRACE)? {
            return Ok(status);
        }
        self.child.kill()?;
        self.child.wait()?;
        anyhow::bail!(
            "{} did not end within {} s of SIGTERM; the end of its log:\n{}",
            self.name,
            GRACE.as_secs(),
            command::tail_of(&self.log)
        )
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

/// Waits for the end of a child; `None` when it still runs after `limit`.
///
/// # Errors
/// The kernel refuses the wait.
pub fn wait_child(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= limit {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// SIGKILL to a child that leads a process group, and to the group.
///
/// # Errors
/// The group is gone already.
pub fn kill_group(child: &Child) -> Result<()> {
    let group = i32::try_from(child.id()).context("process id")?;
    killpg(Pid::from_raw(group), Signal::SIGKILL).context("kill the group")
}
