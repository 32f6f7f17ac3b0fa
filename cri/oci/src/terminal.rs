//! A process's terminal, made in the container's own devpts.
//!
//! What lies at a path inside was arranged by the image, or by the container's other processes: `/dev/pts` is resolved
//! below the root and must be a devpts, in which nobody can make links, and the peer comes from its master
//! (CVE-2025-52565).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use berth_guard::Guard;
use berth_plan::container::{Mount, MountSource};
use berth_plan::message::{Failure, Stage};
use berth_sys::Mode;
use berth_sys::mount::Tree;
use berth_sys::path::{self, Root};
use berth_sys::terminal::{self, Pair};
use berth_sys::{OFlags, fd};

use crate::failure::{At, refused};
use crate::launch;

const PTS: &str = "/dev/pts";
const CONSOLE: &str = "/dev/console";

pub(crate) fn open(root: &Root) -> Result<Pair, Failure> {
    let act = || format!("open a terminal in {PTS:?}");
    let folder = root.open_path(PTS).at(Stage::Device, act)?;
    terminal::open(folder.as_fd()).at(Stage::Device, act)
}

/// Puts the terminal at `/dev/console`, where the container's `/dev` is one of our making. In one that was bound from the
/// host nothing is covered: the mount might travel back.
pub(crate) fn mount_console<'a>(
    root: &Root,
    mut mounts: impl Iterator<Item = &'a Mount>,
    pair: &Pair,
) -> Result<(), Failure> {
    let ours = |mount: &Mount| mount.destination == "/dev" && matches!(mount.source, MountSource::Filesystem { .. });
    if !mounts.any(ours) {
        return Ok(());
    }
    let act = || format!("mount the terminal to {CONSOLE:?}");
    let (folder, name) = root.make_parent(CONSOLE, Mode::from_raw_mode(0o755)).at(Stage::Device, act)?;
    let folder = Root::from_fd(folder);
    match folder.open_file(&name, OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW, Mode::from_raw_mode(0o600)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other.map(drop).at(Stage::Device, act)?,
    }
    let target = if Guard::ConsoleIsNoLink.stands() {
        folder.open_path_nofollow(Path::new(&name)).at(Stage::Device, act)?
    } else {
        root.open_path(CONSOLE).at(Stage::Device, act)?
    };
    if path::facts(target.as_fd()).at(Stage::Device, act)?.is_link() {
        return Err(refused(Stage::Device, format!("{CONSOLE:?} is a symbolic link")));
    }
    Tree::copy(&pair.peer, false).and_then(|tree| tree.attach(target)).at(Stage::Device, act)
}

/// Makes the terminal the controlling one of the caller's session and its three standard streams. Its master goes to the
/// launcher and to nobody else.
pub(crate) fn take(pair: Pair, report: BorrowedFd<'_>) -> Result<(), Failure> {
    let act = || "take the terminal".to_owned();
    let Pair { master, peer } = pair;
    terminal::set_controlling(&peer).at(Stage::Device, act)?;
    let peer = peer.as_fd();
    fd::set_standard([peer, peer, peer]).at(Stage::Device, act)?;
    launch::tell_terminal(report, master.as_fd()).at(Stage::Device, || "hand over the terminal".to_owned())
}
