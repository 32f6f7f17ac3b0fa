//! The carried shim as a file.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use berth_carried::{SHIM, SHIM_DIGEST};
use rustix::fs::StatVfsMountFlags;

use crate::OpenError;
use crate::places::Places;

/// Installs the shim under its digest, read-only, and removes other versions: a shim that runs keeps its file without a
/// name. `STATE/bin`, or `ROOT/bin` where the state folder's file system runs no programs (Debian's /run).
pub(crate) fn shim(places: &Places) -> Result<PathBuf, OpenError> {
    let noexec = rustix::fs::statvfs(&places.state).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::NOEXEC));
    let folder = if noexec { places.root.join("bin") } else { places.state.join("bin") };
    fs::create_dir_all(&folder).map_err(OpenError::io("create", &folder))?;
    let path = folder.join(format!("berth-shim-{SHIM_DIGEST}"));
    // The contents are compared, not only the name: no flush is spent on it, so a power cut may have emptied it.
    if fs::read(&path).ok().as_deref() != Some(SHIM) {
        write(&folder, &path).map_err(OpenError::io("write", &path))?;
    }
    for entry in fs::read_dir(&folder).map_err(OpenError::io("list", &folder))?.flatten() {
        if entry.path() != path {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(path)
}

fn write(folder: &Path, path: &Path) -> io::Result<()> {
    berth_effect::run("shim-install", || {
        let temporary = folder.join(format!(".tmp-{}", std::process::id()));
        let _ = fs::remove_file(&temporary);
        fs::write(&temporary, SHIM)?;
        fs::set_permissions(&temporary, Permissions::from_mode(0o555))?;
        fs::rename(&temporary, path)
    })
}
