//! A container's processes as the host sees them.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command;

/// A process by number and start time, so that a reused number is another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pid: i32,
    start: String,
}

impl Process {
    /// The first process of a container: the one in the container's cgroup whose parent is not.
    pub(super) fn of_container(id: &str) -> Result<Self> {
        let mut members = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let inside = fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(id));
            if inside {
                members.push(pid);
            }
        }
        for pid in &members {
            let process = Self::new(*pid)?;
            if !members.contains(&process.parent_pid()?) {
                return Ok(process);
            }
        }
        bail!("no process is in a cgroup of container {id}")
    }

    fn new(pid: i32) -> Result<Self> {
        // The name in the second field may hold spaces; fields are counted from its end. The start time is the 22nd.
        let start = fields(pid)?.get(19).cloned().context("start time")?;
        Ok(Self { pid, start })
    }

    /// Its parent.
    pub(super) fn parent(&self) -> Result<Self> {
        Self::new(self.parent_pid()?)
    }

    fn parent_pid(&self) -> Result<i32> {
        fields(self.pid)?.get(1).context("parent")?.parse().context("parent")
    }

    /// What the kernel calls it.
    pub(super) fn name(&self) -> Result<String> {
        Ok(fs::read_to_string(format!("/proc/{}/comm", self.pid))?.trim().to_owned())
    }

    /// Whether it still runs; a zombie does not.
    pub(super) fn is_alive(&self) -> bool {
        Self::new(self.pid).is_ok_and(|now| now.start == self.start)
            && fields(self.pid).is_ok_and(|fields| fields.first().is_some_and(|state| state != "Z"))
    }

    /// SIGKILL.
    pub(super) fn kill(&self) -> Result<()> {
        kill(Pid::from_raw(self.pid), Signal::SIGKILL).context("kill")
    }

    /// Fetches a URL from inside its network namespace.
    pub(super) fn fetch(&self, url: &str) -> Result<String> {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string(), "--net"]);
        command.args(super::FETCH).arg(url);
        command::output(&mut command)
    }
}

/// The fields of /proc/PID/stat from the third (the state) on.
fn fields(pid: i32) -> Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text.rsplit_once(") ").context("stat has a name in parentheses")?;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_itself_while_it_lives() {
        let own = Process::new(i32::try_from(std::process::id()).expect("pid")).expect("own process");
        assert!(own.is_alive());
        assert_ne!(own.parent().expect("parent"), own);
    }
}
