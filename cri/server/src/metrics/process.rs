//! What /proc says of a container's processes.

use std::fs;
use std::os::unix::ffi::OsStrExt;

/// More descriptors are not counted: the processes belong to others, and each one costs a system call.
const LIMIT: u64 = 100_000;

/// Open descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) all: u64,
    pub(super) sockets: u64,
}

/// Those of some processes; `None` when there are more than 100,000. One that ends meanwhile has none.
pub(super) fn descriptors(pids: &[i32]) -> Option<Open> {
    let mut open = Open { all: 0, sockets: 0 };
    for pid in pids {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for entry in entries.flatten() {
            open.all += 1;
            if open.all > LIMIT {
                return None;
            }
            let target = fs::read_link(entry.path());
            open.sockets += u64::from(target.is_ok_and(|target| target.as_os_str().as_bytes().starts_with(b"socket:")));
        }
    }
    Some(open)
}

/// The soft limit of open files; `None` where there is no limit, which the CRI can't say.
pub(super) fn open_files_limit(pid: i32) -> Option<u64> {
    soft_limit(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?, "Max open files")
}

fn soft_limit(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_descriptors_are_counted() {
        let pid = i32::try_from(std::process::id()).expect("a pid");
        let before = descriptors(&[pid]).expect("few");
        let _pair = std::os::unix::net::UnixStream::pair().expect("sockets");
        let with = descriptors(&[pid]).expect("few");
        // Other tests open and close some, too.
        assert!(with.sockets >= 2 && with.all >= 5 && before.all >= 3, "{before:?} {with:?}");
        assert_eq!(descriptors(&[-1]), Some(Open { all: 0, sockets: 0 }));
    }

    #[test]
    fn limits_are_read() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max cpu time              unlimited            unlimited            seconds   \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(soft_limit(text, "Max open files"), Some(1024));
        assert_eq!(soft_limit(text, "Max cpu time"), None);
        assert!(open_files_limit(i32::try_from(std::process::id()).expect("a pid")).is_some());
    }
}
