//! Making and limiting a cgroup in the v1 hierarchies.

use std::path::Path;

use crate::Resources;
use crate::cgroup::{Cgroup, make_folder};
use crate::error::CgroupError;
use crate::files::{read, read_number, write, write_if_there};
use crate::host::Hierarchy;

/// Makes `path` in one hierarchy. A cpuset starts empty and takes no process until it has CPUs and memory nodes: each new
/// one gets its parent's.
pub(crate) fn make(hierarchy: &Hierarchy, path: &str) -> Result<(), CgroupError> {
    let is_cpuset = hierarchy.controllers.iter().any(|controller| controller == "cpuset");
    let mut folder = hierarchy.path.clone();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let child = folder.join(part);
        make_folder(&child)?;
        if is_cpuset {
            inherit_cpuset(&folder, &child)?;
        }
        folder = child;
    }
    Ok(())
}

fn inherit_cpuset(parent: &Path, child: &Path) -> Result<(), CgroupError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if read(child, file)?.trim().is_empty() {
            write(child, file, read(parent, file)?.trim())?;
        }
    }
    Ok(())
}

pub(crate) fn apply(cgroup: &Cgroup, resources: &Resources) -> Result<(), CgroupError> {
    if let Some((file, _)) = resources.unified.first() {
        return Err(CgroupError::Unsupported {
            what: "unified",
            reason: format!("{file} is a file of cgroup v2, and this machine has v1"),
        });
    }
    cpu(cgroup, resources)?;
    for (file, list) in [("cpuset.cpus", &resources.cpuset_cpus), ("cpuset.mems", &resources.cpuset_mems)] {
        if !list.is_empty() {
            write(&controller(cgroup, "cpuset", "cpuset")?, file, list)?;
        }
    }
    memory(cgroup, resources)?;
    if let Some(limit) = resources.pids_limit {
        let limit = if limit < 0 { "max".to_owned() } else { limit.to_string() };
        write(&controller(cgroup, "pids", "pids_limit")?, "pids.max", &limit)?;
    }
    // As containerd by default: a machine without huge pages of that size has none to give.
    if let Some(folder) = cgroup.controller("hugetlb") {
        for (size, bytes) in &resources.hugepage_limits {
            write_if_there(&folder, &format!("hugetlb.{size}.limit_in_bytes"), &bytes.to_string())?;
        }
    }
    Ok(())
}

fn controller(cgroup: &Cgroup, name: &str, what: &'static str) -> Result<std::path::PathBuf, CgroupError> {
    let reason = || format!("the {name} controller is not mounted");
    cgroup.controller(name).ok_or_else(|| CgroupError::Unsupported { what, reason: reason() })
}

fn cpu(cgroup: &Cgroup, resources: &Resources) -> Result<(), CgroupError> {
    if resources.cpu_shares.is_none() && resources.cpu_quota.is_none() && resources.cpu_period.is_none() {
        return Ok(());
    }
    let folder = controller(cgroup, "cpu", "cpu")?;
    if let Some(shares) = resources.cpu_shares {
        write(&folder, "cpu.shares", &shares.to_string())?;
    }
    let period = resources.cpu_period.map(|period| period.to_string());
    let quota = resources.cpu_quota.map(|quota| quota.to_string());
    // The kernel refuses a period that makes the old quota larger than the parent's share; with the new quota in place
    // it may fit, and the other way round.
    let early = period.as_ref().map(|period| write(&folder, "cpu.cfs_period_us", period));
    if let Some(quota) = &quota {
        write(&folder, "cpu.cfs_quota_us", quota)?;
    }
    match (early, &period) {
        (Some(Err(_)), Some(period)) => write(&folder, "cpu.cfs_period_us", period),
        _ => Ok(()),
    }
}

/// The memory limit may never be above that of memory and swap together: which is written first depends on the way.
fn memory(cgroup: &Cgroup, resources: &Resources) -> Result<(), CgroupError> {
    if resources.memory_limit.is_none() && resources.memory_swap.is_none() {
        return Ok(());
    }
    let folder = controller(cgroup, "memory", "memory_limit")?;
    let limit = |_: ()| match resources.memory_limit {
        Some(bytes) => write(&folder, "memory.limit_in_bytes", &bytes.to_string()),
        None => Ok(()),
    };
    let swap = |_: ()| match resources.memory_swap {
        // A kernel without swap accounting lacks the file.
        Some(bytes) => write_if_there(&folder, "memory.memsw.limit_in_bytes", &bytes.to_string()).map(drop),
        None => Ok(()),
    };
    let wanted = resources.memory_limit.map_or(0, |bytes| u64::try_from(bytes).unwrap_or(u64::MAX));
    let now = read_number(&folder, "memory.memsw.limit_in_bytes").unwrap_or(u64::MAX);
    if wanted > now { swap(()).and_then(limit) } else { limit(()).and_then(swap) }
}
