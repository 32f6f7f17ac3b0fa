//! Files, cgroups and kernel settings.

use std::fs;
use std::path::{Path, PathBuf};

/// Settings outside the network that a node agent or runtime is known to change.
const KERNEL: &[&str] = &[
    "/proc/sys/kernel/keys/root_maxbytes",
    "/proc/sys/kernel/keys/root_maxkeys",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/panic_on_oops",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/panic_on_oom",
];

/// Network settings: every one of these folders' files, and those of the folders in them.
const NETWORK: &[&str] =
    &["/proc/sys/net/ipv4", "/proc/sys/net/ipv4/conf", "/proc/sys/net/ipv6/conf", "/proc/sys/net/bridge"];

/// All paths below `root` for which `wanted` holds; a folder that is not wanted is not entered.
pub(super) fn tree(root: &Path, wanted: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(folder) = pending.pop() {
        for path in entries(&folder) {
            if !wanted(&path) {
                continue;
            }
            lines.push(path.display().to_string());
            if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
                pending.push(path);
            }
        }
    }
    lines
}

pub(super) fn sysctls() -> Vec<String> {
    let mut lines: Vec<String> = KERNEL.iter().filter_map(|path| setting(Path::new(path))).collect();
    for folder in NETWORK {
        for path in entries(Path::new(folder)) {
            if path.is_file() {
                lines.extend(setting(&path));
            } else if folder.ends_with("conf") {
                lines.extend(entries(&path).iter().filter_map(|path| setting(path)));
            }
        }
    }
    lines
}

fn setting(path: &Path) -> Option<String> {
    // Some are write-only, and an interface may vanish while we look.
    let value = fs::read_to_string(path).ok()?;
    Some(format!("{} = {}", path.strip_prefix("/proc/sys").unwrap_or(path).display(), value.trim()))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).map_or_else(|_| Vec::new(), |list| list.flatten().map(|entry| entry.path()).collect())
}
