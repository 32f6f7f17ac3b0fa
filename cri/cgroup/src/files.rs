//! Reading and writing the small files of a cgroup.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use crate::error::CgroupError;

/// The longest file that is read: `cgroup.procs` of a large pod.
const LIMIT: u64 = 8 << 20;

/// Writes a value in one write(2), which is how these files want it.
pub(crate) fn write(dir: &Path, file: &str, value: &str) -> Result<(), CgroupError> {
    let path = dir.join(file);
    put(&path, value).map_err(CgroupError::io(format!("write {value:?} to"), &path))
}

/// As [`write()`], but a file that the kernel lacks is fine: `false`.
pub(crate) fn write_if_there(dir: &Path, file: &str, value: &str) -> Result<bool, CgroupError> {
    match write(dir, file, value) {
        Err(error) if error.errno() == Some(libc_enoent()) => Ok(false),
        other => other.map(|()| true),
    }
}

fn libc_enoent() -> i32 {
    rustix::io::Errno::NOENT.raw_os_error()
}

fn put(path: &Path, value: &str) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(value.as_bytes())
}

pub(crate) fn read(dir: &Path, file: &str) -> Result<String, CgroupError> {
    let path = dir.join(file);
    let mut text = String::new();
    let outcome = File::open(&path).and_then(|file| file.take(LIMIT).read_to_string(&mut text));
    outcome.map(|_| text).map_err(CgroupError::io("read", &path))
}

/// A file that may be missing, or that the kernel refuses to read (pressure where it is switched off).
pub(crate) fn optional(dir: &Path, file: &str) -> Option<String> {
    // The usual file fits: one read for it, and one that finds its end.
    let mut text = String::with_capacity(4096);
    File::open(dir.join(file)).ok()?.take(LIMIT).read_to_string(&mut text).ok()?;
    Some(text)
}

/// A file with one number; `max` and what does not parse is `u64::MAX`.
pub(crate) fn read_number(dir: &Path, file: &str) -> Result<u64, CgroupError> {
    Ok(read(dir, file)?.trim().parse().unwrap_or(u64::MAX))
}

/// The number behind `key` in a file of lines `key number`.
pub(crate) fn read_keyed(dir: &Path, file: &str, key: &str) -> Result<Option<u64>, CgroupError> {
    Ok(keyed(&read(dir, file)?, key))
}

pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The process ids of `cgroup.procs`; none where the cgroup is gone.
pub(crate) fn procs(dir: &Path) -> Vec<i32> {
    // ENODEV while it is being removed.
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.trim().parse().ok()).filter(|pid| *pid > 0).collect()
}

/// The folders below `dir`, each after its own children.
pub(crate) fn descendants(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return found };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(descendants(&entry.path()));
            found.push(entry.path());
        }
    }
    found
}
