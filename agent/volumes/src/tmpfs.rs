//! Volumes in memory.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::mount::{MountFlags, UnmountFlags};

/// Whether the kernel has refused `noswap` (known since Linux 6.4). Asking it is the only way to know.
static NO_NOSWAP: AtomicBool = AtomicBool::new(false);

/// Mounts a tmpfs on the folder `path`, unless one lies there already (a crash may have come after the mount).
pub(crate) fn ensure(path: &Path, size: Option<i64>) -> io::Result<()> {
    if is_mount(path)? {
        return Ok(());
    }
    let mut options = "mode=0777".to_owned();
    if let Some(size) = size.filter(|size| *size > 0) {
        options.push_str(&format!(",size={size}"));
    }
    berth_effect::run("volume-mount", || {
        if !NO_NOSWAP.load(Ordering::Relaxed) {
            match mount(path, &format!("{options},noswap")) {
                Err(rustix::io::Errno::INVAL) => NO_NOSWAP.store(true, Ordering::Relaxed),
                other => return Ok(other?),
            }
        }
        Ok(mount(path, &options)?)
    })
}

fn mount(path: &Path, options: &str) -> rustix::io::Result<()> {
    let options = CString::new(options).map_err(|_| rustix::io::Errno::INVAL)?;
    rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::empty(), options.as_c_str())
}

/// Whether another file system begins at `path`.
pub(crate) fn is_mount(path: &Path) -> io::Result<bool> {
    let Some(parent) = path.parent() else { return Ok(true) };
    Ok(fs::symlink_metadata(path)?.dev() != fs::symlink_metadata(parent)?.dev())
}

/// Takes the topmost mount off `path`. A busy one is detached: its pod's processes are gone, so that what still holds it
/// (a scanner, a shell) must not hold the node's books.
pub(crate) fn unmount(path: &Path) -> io::Result<()> {
    berth_effect::run("volume-unmount", || match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW) {
        Err(rustix::io::Errno::BUSY) => {
            Ok(rustix::mount::unmount(path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?)
        }
        // Not a mount point, or not there: someone was faster.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        other => Ok(other?),
    })
}

/// Mount points at and below `folder`, the deepest and latest first.
pub(crate) fn below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    // proc_pid_mountinfo(5): the fifth field is the mount point; lines are in the order of mounting.
    let mut points: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| PathBuf::from(unescape(field)))
        .filter(|point| point.starts_with(folder))
        .collect();
    points.reverse();
    Ok(points)
}

/// Undoes mountinfo's octal escapes of space, tab, newline and backslash.
fn unescape(field: &str) -> String {
    let mut out = Vec::with_capacity(field.len());
    let bytes = field.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 4).and_then(|d| std::str::from_utf8(d).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) if bytes[at] == b'\\' => {
                out.push(byte);
                at += 4;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_escapes_are_undone() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescape("/plain"), "/plain");
        assert_eq!(unescape(r"/tail\04"), r"/tail\04");
    }
}
