//! What processes hold of the machine: descriptors, threads and memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// What one process holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
    /// KiB that only it has, its program's pages among them.
    pub(crate) private: u64,
    /// KiB of what it has allocated: no file has it, and nobody else shares it.
    pub(crate) anonymous: u64,
}

impl Usage {
    /// Of a process of this PID namespace.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let folder = Path::new("/proc").join(pid.to_string());
        let read = |name: &str| fs::read_to_string(folder.join(name)).with_context(|| format!("{name} of {pid}"));
        let (status, rollup) = (read("status")?, read("smaps_rollup")?);
        Ok(Self {
            descriptors: fs::read_dir(folder.join("fd"))?.count() as u64,
            threads: sum(&status, "Threads:"),
            private: sum(&rollup, "Private_"),
            anonymous: sum(&rollup, "Anonymous:"),
        })
    }
}

/// The numbers of all lines that begin so, added up.
fn sum(text: &str, beginning: &str) -> u64 {
    text.lines()
        .filter(|line| line.starts_with(beginning))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}

/// How many processes there are in this PID namespace.
pub(crate) fn processes() -> Result<usize> {
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok())).count())
}

/// What each shim of this PID namespace holds, and each child that writes a shim's logs, by process id.
pub(crate) fn shims() -> Result<BTreeMap<u32, Usage>> {
    let mut shims = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with("berth-shim") {
            shims.insert(pid, Usage::of(pid)?);
        }
    }
    Ok(shims)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_is_clean_and_dirty() {
        let rollup = "Rss: 900 kB\nPrivate_Clean:  12 kB\nPrivate_Dirty: 30 kB\nShared_Clean: 5 kB\nAnonymous: 28 kB\n";
        assert_eq!((sum(rollup, "Private_"), sum(rollup, "Anonymous:")), (42, 28));
    }

    #[test]
    fn this_process_has_descriptors_and_memory() {
        let usage = Usage::of(std::process::id()).expect("usage");
        assert!(usage.descriptors >= 3 && usage.threads >= 1 && usage.private > 0 && usage.anonymous > 0, "{usage:?}");
    }
}
