//! Limits of containers and pods as they change.

use berth_cgroup::CgroupError;
use berth_cri_proto::v1::LinuxContainerResources;
use tonic::Status;

/// Old limits with what is asked for; 0 and the empty leave what was.
pub(crate) fn merge(old: LinuxContainerResources, new: LinuxContainerResources) -> LinuxContainerResources {
    let number = |new: i64, old: i64| if new == 0 { old } else { new };
    let text = |new: String, old: String| if new.is_empty() { old } else { new };
    LinuxContainerResources {
        cpu_period: number(new.cpu_period, old.cpu_period),
        cpu_quota: number(new.cpu_quota, old.cpu_quota),
        cpu_shares: number(new.cpu_shares, old.cpu_shares),
        memory_limit_in_bytes: number(new.memory_limit_in_bytes, old.memory_limit_in_bytes),
        // It can't be changed in a process that runs.
        oom_score_adj: old.oom_score_adj,
        cpuset_cpus: text(new.cpuset_cpus, old.cpuset_cpus),
        cpuset_mems: text(new.cpuset_mems, old.cpuset_mems),
        hugepage_limits: if new.hugepage_limits.is_empty() { old.hugepage_limits } else { new.hugepage_limits },
        unified: old.unified.into_iter().chain(new.unified).collect(),
        memory_swap_limit_in_bytes: number(new.memory_swap_limit_in_bytes, old.memory_swap_limit_in_bytes),
    }
}

/// What a pod's containers and its overhead may use together, of CPU and memory; none and "no limit" (negative) are none in it.
pub(crate) fn sum(one: &LinuxContainerResources, other: &LinuxContainerResources) -> LinuxContainerResources {
    let add = |one: i64, other: i64| if one < 0 || other < 0 { -1 } else { one.saturating_add(other) };
    LinuxContainerResources {
        cpu_quota: match (one.cpu_quota, other.cpu_quota, one.cpu_period, other.cpu_period) {
            // In different periods they are no numbers of one kind; the overhead's are dropped, which is no limit less.
            (quota, extra, period, other) if extra == 0 || other == 0 || period == other => add(quota, extra),
            (quota, ..) => quota,
        },
        cpu_shares: add(one.cpu_shares, other.cpu_shares),
        memory_limit_in_bytes: match (one.memory_limit_in_bytes, other.memory_limit_in_bytes) {
            // An overhead alone does not limit the pod.
            (0, _) => 0,
            (bytes, extra) => add(bytes, extra),
        },
        memory_swap_limit_in_bytes: match (one.memory_swap_limit_in_bytes, other.memory_limit_in_bytes) {
            (0, _) => 0,
            (bytes, extra) => add(bytes, extra),
        },
        cpu_period: one.cpu_period,
        ..LinuxContainerResources::default()
    }
}

/// What the kernel refused, by the field that it came from.
pub(crate) fn refused(error: &CgroupError, what: &str) -> Status {
    let CgroupError::Io { path, .. } = error else {
        return Status::failed_precondition(format!("{what}: {error}"));
    };
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let field = match &*file {
        "cpu.shares" | "cpu.weight" => "linux.cpu_shares",
        "cpu.cfs_period_us" => "linux.cpu_period",
        "cpu.cfs_quota_us" | "cpu.max" => "linux.cpu_quota",
        "cpuset.cpus" => "linux.cpuset_cpus",
        "cpuset.mems" => "linux.cpuset_mems",
        "memory.limit_in_bytes" | "memory.max" => "linux.memory_limit_in_bytes",
        "memory.memsw.limit_in_bytes" | "memory.swap.max" => "linux.memory_swap_limit_in_bytes",
        file if file.starts_with("hugetlb.") => "linux.hugepage_limits",
        _ => "linux.unified",
    };
    let text = format!("{what}: {field}: {error}");
    match error.errno().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::INVAL | rustix::io::Errno::RANGE | rustix::io::Errno::ACCESS) => {
            Status::invalid_argument(text)
        }
        // Memory in use that can't be reclaimed: a larger limit, or another time.
        Some(rustix::io::Errno::BUSY) => Status::failed_precondition(text),
        _ => Status::unknown(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_asked_for_leaves_everything() {
        let old = LinuxContainerResources {
            cpu_shares: 100,
            memory_limit_in_bytes: 5,
            oom_score_adj: 7,
            cpuset_cpus: "0".to_owned(),
            unified: [("memory.high".to_owned(), "9".to_owned())].into(),
            ..LinuxContainerResources::default()
        };
        assert_eq!(merge(old.clone(), LinuxContainerResources::default()), old);
        let new = LinuxContainerResources {
            cpu_shares: 200,
            unified: [("memory.min".to_owned(), "1".to_owned())].into(),
            ..LinuxContainerResources::default()
        };
        let merged = merge(old, new);
        assert_eq!((merged.cpu_shares, merged.memory_limit_in_bytes, merged.unified.len()), (200, 5, 2));
    }

    #[test]
    fn sums_keep_what_is_unlimited() {
        let limits = |cpu_shares, memory_limit_in_bytes, cpu_quota, cpu_period| LinuxContainerResources {
            cpu_shares,
            memory_limit_in_bytes,
            cpu_quota,
            cpu_period,
            ..LinuxContainerResources::default()
        };
        let both = sum(&limits(100, 1000, 20_000, 100_000), &limits(10, 500, 1000, 100_000));
        assert_eq!(both, limits(110, 1500, 21_000, 100_000));
        let open = sum(&limits(100, 0, -1, 100_000), &limits(10, 500, 1000, 100_000));
        assert_eq!(open, limits(110, 0, -1, 100_000));
    }
}
