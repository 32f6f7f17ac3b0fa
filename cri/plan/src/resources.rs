//! Resource limits of a cgroup, as decided by the core and applied by `cri/cgroup`.

/// What is `None` or empty is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// v1 shares, 2 to 262144; converted to a weight on v2.
    pub cpu_shares: Option<u64>,
    /// Microseconds a period; -1 is no limit.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// CPU list, `0-1,3`.
    pub cpuset_cpus: String,
    /// Memory node list.
    pub cpuset_mems: String,
    /// Bytes; -1 is no limit.
    pub memory_limit: Option<i64>,
    /// Memory and swap together, bytes (v1 meaning; converted on v2); -1 is no limit.
    pub memory_swap: Option<i64>,
    /// -1 is no limit.
    pub pids_limit: Option<i64>,
    /// (page size as the kernel names it, "2MB"; bytes).
    pub hugepage_limits: Vec<(String, u64)>,
    /// Files of cgroup v2, written as they are after the rest.
    pub unified: Vec<(String, String)>,
}

/// A file of a controller, beside what [`Resources`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Where the limit comes from, `linux.resources.blockIO.weight`, for messages.
    pub field: String,
    /// The v1 controller; on v2 it is only a name.
    pub controller: String,
    /// (name, value): kernels know the limit by different names, and the first that is there is written.
    pub files: Vec<(String, String)>,
}
