//! Memory: `memory.*` of v1 and v2.

use super::{keyed, limit, number};

/// Memory in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    /// Everything that is charged: processes, page cache, kernel.
    pub usage: u64,
    /// `usage` without the file pages that the kernel would drop first.
    pub working_set: u64,
    /// The limit of memory; `None` is no limit.
    pub limit: Option<u64>,
    /// Anonymous memory, huge pages included; not swapped out.
    pub rss: Option<u64>,
    /// Page cache, tmpfs included.
    pub cache: Option<u64>,
    pub mapped_file: Option<u64>,
    pub kernel: Option<u64>,
    /// The greatest usage so far (v2: since Linux 5.19).
    pub peak: Option<u64>,
    /// How often the limit was hit.
    pub limit_hits: Option<u64>,
    /// Swapped out; `None` without swap accounting.
    pub swap: Option<u64>,
    /// How much may be swapped out; `None` is no limit.
    pub swap_limit: Option<u64>,
    /// Of it and all below it.
    pub faults: Option<Faults>,
    /// Of it alone: v1 only.
    pub own_faults: Option<Faults>,
}

/// Page faults so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Faults {
    /// All of them.
    pub all: u64,
    /// Those that had to read.
    pub major: u64,
}

/// What `usage` says, with other files by `file`.
pub(super) fn v1(usage: &str, file: &dyn Fn(&str) -> Option<String>) -> Option<Memory> {
    let stat = file("memory.stat").unwrap_or_default();
    let total = |key: &str| keyed(&stat, &format!("total_{key}"));
    let usage = number(usage)?;
    let one = |name: &str| file(name);
    let bytes = one("memory.limit_in_bytes").and_then(|text| limit(&text));
    let both = one("memory.memsw.limit_in_bytes").and_then(|text| limit(&text));
    Some(Memory {
        usage,
        working_set: usage.saturating_sub(total("inactive_file").unwrap_or(0)),
        limit: bytes,
        rss: total("rss"),
        cache: total("cache"),
        mapped_file: total("mapped_file"),
        kernel: one("memory.kmem.usage_in_bytes").and_then(|text| number(&text)),
        peak: one("memory.max_usage_in_bytes").and_then(|text| number(&text)),
        limit_hits: one("memory.failcnt").and_then(|text| number(&text)),
        swap: total("swap"),
        swap_limit: both.zip(bytes).map(|(both, bytes)| both.saturating_sub(bytes)),
        faults: faults(total("pgfault"), total("pgmajfault")),
        own_faults: faults(keyed(&stat, "pgfault"), keyed(&stat, "pgmajfault")),
    })
}

pub(super) fn v2(usage: &str, file: &dyn Fn(&str) -> Option<String>) -> Option<Memory> {
    let stat = file("memory.stat").unwrap_or_default();
    let key = |key: &str| keyed(&stat, key);
    let usage = number(usage)?;
    // "kernel" since Linux 5.18; its parts before.
    let parts = || ["kernel_stack", "pagetables", "percpu", "slab"].into_iter().map(key).sum::<Option<u64>>();
    Some(Memory {
        usage,
        working_set: usage.saturating_sub(key("inactive_file").unwrap_or(0)),
        limit: file("memory.max").and_then(|text| limit(&text)),
        rss: key("anon"),
        cache: key("file"),
        mapped_file: key("file_mapped"),
        kernel: key("kernel").or_else(parts),
        peak: file("memory.peak").and_then(|text| number(&text)),
        limit_hits: file("memory.events").and_then(|text| keyed(&text, "max")),
        swap: file("memory.swap.current").and_then(|text| number(&text)),
        swap_limit: file("memory.swap.max").and_then(|text| limit(&text)),
        faults: faults(key("pgfault"), key("pgmajfault")),
        own_faults: None,
    })
}

fn faults(all: Option<u64>, major: Option<u64>) -> Option<Faults> {
    all.zip(major).map(|(all, major)| Faults { all, major })
}

#[cfg(test)]
mod tests;
