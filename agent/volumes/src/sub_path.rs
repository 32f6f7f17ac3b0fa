//! One file or folder of a volume, instead of the whole.
//!
//! What lies in a volume is the pod's own doing: a link in it may lead anywhere, and may change between a look and a
//! mount. So the path is resolved by the kernel with the volume as its root, and what was found is mounted by handle at a
//! place that no container can reach; the runtime is given that place.
//!
//! Source: `kubernetes@v1.37.2:staging/src/k8s.io/mount-utils` and `pkg/volume/util/subpath/subpath_linux.go` (the
//! layout, and what is made when it is missing); CVE-2017-1002101, CVE-2021-25741 (why by handle).

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use berth_sys::mount::Tree;
use berth_sys::path::{self, Root};
use berth_sys::{Mode, OFlags};

use crate::{layout, tmpfs};

/// A mount's `subPath` (or what its `subPathExpr` gave), and where it belongs.
#[derive(Debug, Clone, Copy)]
pub struct SubPath<'a> {
    /// The pod's UID.
    pub uid: &'a str,
    /// The volume's name in the pod.
    pub volume: &'a str,
    /// The container's name.
    pub container: &'a str,
    /// The mount's index in the container's `volumeMounts`.
    pub index: usize,
    /// Below the volume's root.
    pub path: &'a str,
}

/// Why a part of a volume can't be mounted.
#[derive(Debug, thiserror::Error)]
pub enum SubPathError {
    /// It is absolute or climbs.
    #[error("subPath {path:?} of volume {volume:?}: must be a relative path without '..'")]
    Invalid {
        /// The volume's name.
        volume: String,
        /// As declared.
        path: String,
    },
    /// The file system said no.
    #[error("failed to prepare subPath {path:?} of volume {volume:?}: {action}: {source}")]
    Io {
        /// The volume's name.
        volume: String,
        /// As declared.
        path: String,
        /// What was tried.
        action: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
}

/// Mounts a part of the volume that lies at `source`, and says where. A missing part becomes a folder with the volume's
/// own mode. A mount of an earlier instance of the container is replaced. Blocks.
///
/// # Errors
/// See [`SubPathError`].
pub fn bind(root: &Path, source: &Path, sub: SubPath<'_>) -> Result<PathBuf, SubPathError> {
    let invalid = || SubPathError::Invalid { volume: sub.volume.to_owned(), path: sub.path.to_owned() };
    let names = [sub.uid, sub.volume, sub.container];
    if !names.into_iter().all(layout::is_component) || !is_below(Path::new(sub.path)) {
        return Err(invalid());
    }
    let failed = |action| {
        move |source| SubPathError::Io { volume: sub.volume.to_owned(), path: sub.path.to_owned(), action, source }
    };
    let part = berth_effect::run("subpath-resolve", || find(source, sub.path)).map_err(failed("find"))?;
    let is_folder = path::facts(part.as_fd()).map_err(failed("look at"))?.is_folder();
    let parent = layout::sub_paths(root, sub.uid).join(sub.volume).join(sub.container);
    let target = parent.join(sub.index.to_string());
    berth_effect::run("subpath-mount", || {
        fs::create_dir_all(&parent)?;
        clear(&target)?;
        if is_folder {
            fs::create_dir(&target)?;
        } else {
            fs::File::create(&target)?;
        }
        let place = Root::open(&parent)?.open_path_nofollow(sub.index.to_string())?;
        Tree::copy(&part, false)?.attach(place)
    })
    .map_err(failed("mount"))?;
    Ok(target)
}

/// Whether a path stays below where it starts, by its words.
fn is_below(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// A handle of what a path means inside a volume; a folder is made where nothing is.
fn find(source: &Path, path: &str) -> io::Result<OwnedFd> {
    let volume = Root::open(source)?;
    match volume.open_path(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let mode = fs::metadata(source)?.permissions().mode() & 0o7777;
    let made = volume.mkdir_all(path, Mode::from_raw_mode(mode))?;
    // Whatever the umask: the container's own user writes to it, as to the volume.
    let folder = volume.open_file(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    folder.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(made)
}

/// Takes away what an earlier instance left.
fn clear(target: &Path) -> io::Result<()> {
    let target_as_known = match target.canonicalize() {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for point in tmpfs::below(&target_as_known)? {
        tmpfs::unmount(&point)?;
    }
    if fs::symlink_metadata(target)?.is_dir() { fs::remove_dir(target) } else { fs::remove_file(target) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_volume_are_refused_by_their_words() {
        for path in ["a", "a/b", "./a", "..a", "a..", ""] {
            assert!(is_below(Path::new(path)), "{path:?}");
        }
        for path in ["/a", "..", "a/../b", "../a"] {
            assert!(!is_below(Path::new(path)), "{path:?}");
        }
    }
}
