//! Making and limiting a cgroup in the v2 tree.

use std::path::Path;

use crate::cgroup::make_folder;
use crate::error::CgroupError;
use crate::files::{read, write, write_if_there};
use crate::{Resources, limits};

/// Makes `path`. Where the tree holds the controllers, each of them is enabled in every folder above the last: a limit
/// can be set only where the parent passes the controller on.
pub(crate) fn make(root: &Path, path: &str, with_controllers: bool) -> Result<(), CgroupError> {
    let mut folder = root.to_path_buf();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        if with_controllers {
            enable(&folder)?;
        }
        folder.push(part);
        make_folder(&folder)?;
    }
    Ok(())
}

/// Passes on every controller that the folder has. One by one where all at once is refused, so that one that is in use
/// otherwise (a v1 mount, real-time tasks) does not cost the others.
fn enable(folder: &Path) -> Result<(), CgroupError> {
    let has = read(folder, "cgroup.controllers")?;
    let on = read(folder, "cgroup.subtree_control")?;
    let on: Vec<&str> = on.split_whitespace().collect();
    let missing: Vec<String> =
        has.split_whitespace().filter(|name| !on.contains(name)).map(|name| format!("+{name}")).collect();
    if missing.is_empty() || write(folder, "cgroup.subtree_control", &missing.join(" ")).is_ok() {
        return Ok(());
    }
    for change in missing {
        let needed = ["+cpu", "+memory", "+pids"].contains(&change.as_str());
        match write(folder, "cgroup.subtree_control", &change) {
            Err(error) if needed => return Err(error),
            Err(error) => tracing::debug!(%error, "controller not enabled"),
            Ok(()) => {}
        }
    }
    Ok(())
}

pub(crate) fn apply(folder: &Path, resources: &Resources) -> Result<(), CgroupError> {
    if let Some(shares) = resources.cpu_shares {
        write(folder, "cpu.weight", &limits::weight(shares).to_string())?;
    }
    if let Some(line) = limits::cpu_max(resources.cpu_quota, resources.cpu_period) {
        write(folder, "cpu.max", &line)?;
    }
    for (file, list) in [("cpuset.cpus", &resources.cpuset_cpus), ("cpuset.mems", &resources.cpuset_mems)] {
        if !list.is_empty() {
            write(folder, file, list)?;
        }
    }
    // Swap first: where the kernel has none, only a limit of nothing can be kept.
    if let Some(swap) = limits::swap_max(resources.memory_limit, resources.memory_swap)? {
        let written = write_if_there(folder, "memory.swap.max", &swap)?;
        if !written && swap != "0" && swap != "max" {
            let reason = "the kernel has no swap accounting".to_owned();
            return Err(CgroupError::Unsupported { what: "memory_swap", reason });
        }
    }
    if let Some(limit) = resources.memory_limit {
        write(folder, "memory.max", &limits::max(limit))?;
    }
    if let Some(limit) = resources.pids_limit {
        write(folder, "pids.max", &limits::max(limit))?;
    }
    for (size, bytes) in &resources.hugepage_limits {
        write_if_there(folder, &format!("hugetlb.{size}.max"), &bytes.to_string())?;
    }
    for (file, value) in &resources.unified {
        if file.contains('/') || file.starts_with("cgroup.") {
            let reason = format!("{file} is not a file of a controller");
            return Err(CgroupError::Unsupported { what: "unified", reason });
        }
        write(folder, file, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_limited_where_the_kernel_counts_them() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("hugetlb.2MB.max"), "").expect("a file");
        let pages = |size: &str, bytes| (size.to_owned(), bytes);
        let limits = vec![pages("2MB", 4 << 20), pages("1GB", 1 << 30)];
        apply(folder.path(), &Resources { hugepage_limits: limits, ..Resources::default() }).expect("applied");
        let written = std::fs::read_to_string(folder.path().join("hugetlb.2MB.max")).expect("the file");
        assert_eq!(written, "4194304");
        assert!(!folder.path().join("hugetlb.1GB.max").exists(), "a size that this kernel lacks is no error");
    }
}
