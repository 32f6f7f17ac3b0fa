//! What the parent adds to an applied layer: marks that take full privileges, and what only the layers below know.
//!
//! The child has ended, so nothing else acts on the tree; still every folder is opened below its root by descriptor.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::Report;
use crate::users::{Found, lookup};

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Marks opaque folders of the layer at `root`, and gives its implied folders owner, mode, times and attributes of the
/// same folders in `lower` (top first).
///
/// # Errors
/// What the file system answers.
pub(crate) fn finish(root: &Path, report: &Report, lower: &[OwnedFd]) -> io::Result<()> {
    let root = rustix::fs::open(root, FOLDER, Mode::empty())?;
    for name in &report.opaque {
        if let Some(folder) = open(&root, name.path().as_deref())? {
            rustix::fs::fsetxattr(&folder, "trusted.overlay.opaque", b"y", XattrFlags::empty())?;
        }
    }
    for name in report.implied.iter().filter(|name| !report.opaque.contains(name)) {
        let path = name.path();
        let (Some(folder), Some(path)) = (open(&root, path.as_deref())?, path) else { continue };
        if let Found::Folder(parts) = lookup(lower, path.as_os_str())?
            && let Some(original) = parts.first()
        {
            copy(original, &folder)?;
        }
    }
    Ok(())
}

/// A folder of the layer; `None` when a later entry of its archive replaced it.
fn open(root: &OwnedFd, path: Option<&Path>) -> io::Result<Option<OwnedFd>> {
    let Some(path) = path else { return Err(io::Error::new(io::ErrorKind::InvalidData, "not a name of a layer")) };
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(root, path, FOLDER, Mode::empty(), resolve) {
        Ok(folder) => Ok(Some(folder)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn copy(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(to, Some(uid), Some(gid))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let mut names = vec![0u8; 64 << 10];
    let length = match rustix::fs::flistxattr(from, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")) {
        let mut value = vec![0u8; 64 << 10];
        let length = rustix::fs::fgetxattr(from, name, &mut value[..])?;
        rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) };
    rustix::fs::futimens(to, &Timestamps { last_access: time, last_modification: time })?;
    Ok(())
}
