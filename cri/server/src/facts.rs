//! What the machine is, looked up once.

use std::fs;
use std::path::Path;

use berth_cgroup::Host;
use berth_cri_core::HostFacts;
use berth_cri_core::host::{Arch, CgroupLayout};
use berth_cri_core::seccomp::Filters;

const CAP_SYS_RESOURCE: u64 = 1 << 24;

pub(crate) fn probe(cgroups: &Host) -> HostFacts {
    let line = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let effective = berth_sys::caps::effective().unwrap_or(0);
    HostFacts {
        arch: Arch::NATIVE,
        cgroups: CgroupLayout::from(cgroups),
        bounding: berth_sys::caps::bounding(),
        can_lower_oom: effective & CAP_SYS_RESOURCE != 0,
        oom_score_adj: line("/proc/self/oom_score_adj").parse().unwrap_or(0),
        apparmor: line("/sys/module/apparmor/parameters/enabled") == "Y",
        selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        recursive_read_only: at_least(&line("/proc/sys/kernel/osrelease"), (5, 12)),
        hostname: line("/proc/sys/kernel/hostname"),
        filters: Filters::default(),
    }
}

/// `/proc/sys/kernel/random/boot_id`.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// A process' start in clock ticks since boot (proc_pid_stat(5), field 22).
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, parentheses included.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn at_least(release: &str, wanted: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert!(at_least("6.1.0-18-cloud-amd64", (5, 12)) && at_least("5.12", (5, 12)));
        assert!(!at_least("5.9.1", (5, 12)) && !at_least("", (5, 12)));
    }

    #[test]
    fn our_own_start_is_known() {
        let pid = i32::try_from(std::process::id()).expect("a pid");
        assert!(start_time(pid).is_some_and(|ticks| ticks > 0));
        assert_eq!(start_time(-1), None);
    }
}
