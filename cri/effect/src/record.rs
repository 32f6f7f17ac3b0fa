//! Records on disk: whole or absent, never torn.
//!
//! [`write_volatile`] is for what a reboot destroys anyway: the rename makes it survive `kill -9`. [`write_durable`] is
//! for what must survive a power cut, and costs two flushes (the file and its folder).

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

static TEMPORARY: AtomicU64 = AtomicU64::new(0);
static FLUSHES: AtomicU64 = AtomicU64::new(0);

/// The prefix of files that a crash may leave half-written; recovery deletes them.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

/// How many flushes ([`File::sync_all`]) this process has asked for through this module.
pub fn flushes() -> u64 {
    FLUSHES.load(Ordering::Relaxed)
}

/// Replaces `path` by `bytes` (mode 0600) with a rename and no flush.
///
/// # Errors
/// What the file system answers; the old record is then still in place.
pub fn write_volatile(path: &Path, bytes: &[u8]) -> io::Result<()> {
    crate::run("record-write", || {
        let temporary = write_temporary(path, bytes, false)?;
        rename_or_remove(&temporary, path)
    })
}

/// Replaces `path` by `bytes` (mode 0600), flushed to the disk together with its folder.
///
/// # Errors
/// What the file system answers; the old record is then still in place, unless only the folder's flush failed.
pub fn write_durable(path: &Path, bytes: &[u8]) -> io::Result<()> {
    crate::run("record-write-durable", || {
        let temporary = write_temporary(path, bytes, true)?;
        rename_or_remove(&temporary, path)?;
        flush(&File::open(parent(path))?)
    })
}

/// Removes a record; one that is not there is fine.
///
/// # Errors
/// What the file system answers.
pub fn remove(path: &Path) -> io::Result<()> {
    crate::run("record-remove", || match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    })
}

/// Reads a record of at most `limit` bytes; `None` when there is none.
///
/// # Errors
/// What the file system answers, or [`io::ErrorKind::InvalidData`] when the record is larger than `limit`.
pub fn read(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("record is larger than {limit} bytes")));
    }
    Ok(Some(bytes))
}

/// Sets a record that can't be understood aside as `NAME.corrupt`, so that nothing is lost and start-up goes on.
///
/// # Errors
/// What the file system answers.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".corrupt");
    let aside = path.with_file_name(name);
    crate::run("record-set-aside", || fs::rename(path, &aside))?;
    Ok(aside)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn flush(file: &File) -> io::Result<()> {
    FLUSHES.fetch_add(1, Ordering::Relaxed);
    file.sync_all()
}

fn write_temporary(path: &Path, bytes: &[u8], durable: bool) -> io::Result<PathBuf> {
    let number = TEMPORARY.fetch_add(1, Ordering::Relaxed);
    let temporary = parent(path).join(format!("{TEMPORARY_PREFIX}{}-{number}", std::process::id()));
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    let written = file.write_all(bytes).and_then(|()| if durable { flush(&file) } else { Ok(()) });
    match written {
        Ok(()) => Ok(temporary),
        Err(error) => {
            let _ = fs::remove_file(&temporary);
            Err(error)
        }
    }
}

fn rename_or_remove(temporary: &Path, path: &Path) -> io::Result<()> {
    fs::rename(temporary, path).inspect_err(|_| {
        let _ = fs::remove_file(temporary);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("berth-record-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        folder
    }

    #[test]
    fn a_record_is_replaced_whole_and_leaves_no_temporary() {
        let folder = folder("replace");
        let path = folder.join("a.json");
        write_volatile(&path, b"one").expect("first write");
        write_durable(&path, b"two").expect("second write");
        assert_eq!(read(&path, 16).expect("read"), Some(b"two".to_vec()));
        assert_eq!(fs::read_dir(&folder).expect("list").count(), 1);
        fs::remove_dir_all(&folder).expect("clean up");
    }

    #[test]
    fn a_record_past_its_limit_is_refused_and_a_missing_one_is_none() {
        let folder = folder("limit");
        let path = folder.join("a.json");
        assert_eq!(read(&path, 2).expect("missing"), None);
        write_volatile(&path, b"abc").expect("write");
        assert_eq!(read(&path, 2).expect_err("too large").kind(), io::ErrorKind::InvalidData);
        remove(&path).expect("remove");
        remove(&path).expect("removing again is fine");
        fs::remove_dir_all(&folder).expect("clean up");
    }
}
