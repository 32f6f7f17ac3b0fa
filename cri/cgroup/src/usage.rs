//! What a cgroup has used.

use crate::cgroup::Cgroup;
use crate::error::CgroupError;
use crate::files::{keyed, read, read_keyed, read_number};

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

    /// CPU time of all its processes, past ones included, in nanoseconds.
    ///
    /// # Errors
    /// When the cgroup is gone.
    pub fn cpu_usage_ns(&self) -> Result<u64, CgroupError> {
        match (self.v2(), self.controller("cpuacct")) {
            (Some(folder), _) => Ok(read_keyed(&folder, "cpu.stat", "usage_usec")?.unwrap_or(0).saturating_mul(1000)),
            (None, Some(folder)) => read_number(&folder, "cpuacct.usage"),
            (None, None) => Ok(0),
        }
    }

    /// Memory in use, without the file pages that the kernel would drop first, in bytes.
    ///
    /// # Errors
    /// When the cgroup is gone.
    pub fn memory_working_set(&self) -> Result<u64, CgroupError> {
        let (folder, usage, key) = match (self.v2(), self.controller("memory")) {
            (Some(folder), _) => (folder, "memory.current", "inactive_file"),
            (None, Some(folder)) => (folder, "memory.usage_in_bytes", "total_inactive_file"),
            (None, None) => return Ok(0),
        };
        let used = read_number(&folder, usage)?;
        Ok(used.saturating_sub(keyed(&read(&folder, "memory.stat")?, key).unwrap_or(0)))
    }
}
