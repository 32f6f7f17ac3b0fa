//! What a cgroup has used.
//!
//! Each call reads the few files that it names and nothing else. A number that the kernel does not give is `None`,
//! never 0: a controller that is not mounted, a file that a kernel is too old for, a limit that is not set.

mod cpu;
mod io;
mod memory;
mod pressure;
mod tasks;

pub use cpu::Cpu;
pub use io::{DeviceIo, HugePages};
pub use memory::{Faults, Memory};
pub use pressure::{Pressure, Stall, Window};
pub use tasks::Tasks;

use crate::cgroup::Cgroup;
use crate::error::CgroupError;
use crate::files::{keyed, optional, read_keyed};

impl Cgroup {
    /// How many of its processes the OOM killer has ended. Read it before the cgroup goes.
    ///
    /// # Errors
    /// When the cgroup is gone.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        let count = match (self.v2(), self.controller("memory")) {
            (Some(folder), _) => read_keyed(&folder, "memory.events", "oom_kill")?,
            (None, Some(folder)) => read_keyed(&folder, "memory.oom_control", "oom_kill")?,
            (None, None) => None,
        };
        Ok(count.unwrap_or(0))
    }

    /// CPU time of all its processes, past ones included.
    ///
    /// # Errors
    /// When the cgroup is gone.
    pub fn cpu(&self) -> Result<Option<Cpu>, CgroupError> {
        if let Some(folder) = self.v2() {
            return Ok(cpu::v2(&crate::files::read(&folder, "cpu.stat")?));
        }
        let Some(folder) = self.controller("cpuacct") else { return Ok(None) };
        let usage = crate::files::read(&folder, "cpuacct.usage")?;
        let text = |folder: Option<&std::path::Path>, file| folder.and_then(|folder| optional(folder, file));
        let (user, system) = (text(Some(&folder), "cpuacct.usage_user"), text(Some(&folder), "cpuacct.usage_sys"));
        let quota = text(self.controller("cpu").as_deref(), "cpu.stat");
        Ok(cpu::v1(&usage, user.as_deref(), system.as_deref(), quota.as_deref()))
    }

    /// Memory in use now, and faults so far.
    ///
    /// # Errors
    /// When the cgroup is gone.
    pub fn memory(&self) -> Result<Option<Memory>, CgroupError> {
        if let Some(folder) = self.v2() {
            // The root and a cgroup whose parent passes the controller on to nobody have no such file.
            let Some(usage) = optional(&folder, "memory.current") else { return gone_or(None, self) };
            return Ok(memory::v2(&usage, &|file| optional(&folder, file)));
        }
        let Some(folder) = self.controller("memory") else { return Ok(None) };
        let usage = crate::files::read(&folder, "memory.usage_in_bytes")?;
        Ok(memory::v1(&usage, &|file| optional(&folder, file)))
    }

    /// How long its tasks have waited. The v2 tree has it, beside v1 hierarchies too, where the kernel was built and
    /// booted with it.
    pub fn pressure(&self) -> Pressure {
        let Some(unified) = &self.host.inner.unified else { return Pressure::default() };
        let folder = self.below(&unified.path);
        let stall = |file| pressure::parse(&optional(&folder, file)?);
        Pressure { cpu: stall("cpu.pressure"), memory: stall("memory.pressure"), io: stall("io.pressure") }
    }

    /// How many tasks (threads) it has, and may have.
    pub fn tasks(&self) -> Option<Tasks> {
        let folder = self.v2().or_else(|| self.controller("pids"))?;
        tasks::parse(&optional(&folder, "pids.current")?, optional(&folder, "pids.max").as_deref())
    }

    /// What it has read and written, by block device. Empty where nothing went to a device yet: the kernel lists no
    /// others.
    pub fn io(&self) -> Vec<DeviceIo> {
        if let Some(folder) = self.v2() {
            return optional(&folder, "io.stat").map(|text| io::v2(&text)).unwrap_or_default();
        }
        let Some(folder) = self.controller("blkio") else { return Vec::new() };
        let text = |file| optional(&folder, file).unwrap_or_default();
        io::v1(&text("blkio.throttle.io_service_bytes_recursive"), &text("blkio.throttle.io_serviced_recursive"))
    }

    /// Huge pages in use, by size.
    pub fn huge_pages(&self) -> Vec<HugePages> {
        let Some(folder) = self.v2().or_else(|| self.controller("hugetlb")) else { return Vec::new() };
        io::huge_pages(&folder)
    }
}

/// An error where the cgroup is gone.
fn gone_or<T>(value: T, cgroup: &Cgroup) -> Result<T, CgroupError> {
    if cgroup.exists() {
        return Ok(value);
    }
    let gone = std::io::Error::from_raw_os_error(rustix::io::Errno::NOENT.raw_os_error());
    Err(CgroupError::io("read", std::path::Path::new(&cgroup.path))(gone))
}

/// A file with one number; `max` and v1's "no limit", which is the greatest multiple of a page, are `None`.
fn limit(text: &str) -> Option<u64> {
    // Page sizes up to 64 KiB round down from i64::MAX.
    const NONE: u64 = i64::MAX as u64 - 0x1_0000;
    text.trim().parse().ok().filter(|bytes| *bytes < NONE)
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod fuzz;
