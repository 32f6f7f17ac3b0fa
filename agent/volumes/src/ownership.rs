//! `securityContext.fsGroup`: a volume's files belong to the group and are readable by it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

const READ_WRITE: u32 = 0o660;
const READ_ONLY: u32 = 0o440;
/// Folders are also entered, and hand their group down.
const FOLDER: u32 = 0o2110;

/// Gives everything at and below `path` to `group`. The top comes last, so that [`is_applied`] tells a finished run.
pub(crate) fn apply(path: &Path, group: u32, read_only: bool) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            apply(&entry?.path(), group, read_only)?;
        }
    }
    lchown(path, None, Some(group))?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mut bits = if read_only { READ_ONLY } else { READ_WRITE };
    if metadata.is_dir() {
        bits |= FOLDER;
    }
    fs::set_permissions(path, Permissions::from_mode(metadata.mode() & 0o7777 | bits))
}

/// Whether [`apply`] went through for this group.
pub(crate) fn is_applied(path: &Path, group: u32) -> io::Result<bool> {
    let metadata = fs::symlink_metadata(path)?;
    Ok(metadata.gid() == group && metadata.mode() & FOLDER == FOLDER)
}
