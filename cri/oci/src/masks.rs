//! Paths that a container must not see, or not write.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use berth_guard::Guard;
use berth_plan::message::{Failure, Stage};
use berth_sys::mount::{self, FsContext, Tree};
use berth_sys::path::{self, Root};

use crate::failure::At;
use crate::host::Host;

/// Covers files with the null device and folders with an empty read-only file system. Paths that do not exist are fine.
pub(crate) fn mask(root: &Root, host: &Host, paths: &[String]) -> Result<(), Failure> {
    // One file system covers all folders.
    let mut empty: Option<Tree> = None;
    for masked in paths {
        let act = || format!("mask {masked:?}");
        let Some(target) = find(root, masked)? else { continue };
        let is_folder = path::facts(target.as_fd()).at(Stage::Paths, act)?.is_folder();
        let cover = match &empty {
            _ if !is_folder && Guard::HostNull.stands() => host.null(),
            _ if !is_folder => root.open_path("/dev/null").and_then(|null| Tree::copy(&null, false)),
            Some(first) => Tree::copy(first, false),
            None => empty_filesystem(),
        };
        let cover = cover.at(Stage::Paths, act)?;
        cover.attach(&target).at(Stage::Paths, act)?;
        // Kept only now: before it was attached it could not be copied.
        if is_folder && empty.is_none() {
            empty = Some(cover);
        }
    }
    Ok(())
}

fn empty_filesystem() -> io::Result<Tree> {
    let context = FsContext::open("tmpfs")?;
    context.set_string("nr_inodes", "1")?;
    context.set_string("size", "4096")?;
    context.mount(mount::RDONLY | mount::NOSUID | mount::NODEV | mount::NOEXEC)
}

/// Puts a read-only copy of each path, and of what is mounted below, over itself. Paths that do not exist are fine.
pub(crate) fn make_readonly(root: &Root, paths: &[String]) -> Result<(), Failure> {
    for wanted in paths {
        let act = || format!("make {wanted:?} read-only");
        let Some(target) = find(root, wanted)? else { continue };
        let copy = Tree::copy(&target, true).at(Stage::Paths, act)?;
        copy.set_attributes(mount::RDONLY, 0, true).at(Stage::Paths, act)?;
        copy.attach(target).at(Stage::Paths, act)?;
    }
    Ok(())
}

fn find(root: &Root, wanted: &str) -> Result<Option<OwnedFd>, Failure> {
    match root.open_path(wanted) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        other => other.map(Some).at(Stage::Paths, || format!("open {wanted:?}")),
    }
}
