//! The root file system: an overlay of the image's layers, or a prepared folder.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use berth_plan::container::Rootfs;
use berth_plan::message::{Failure, Stage};
use berth_sys::mount::{self, FsContext, Tree};
use berth_sys::path::Root;
use berth_sys::{Mode, OFlags, fd};

use crate::failure::{At, refused};
use crate::host::quoted;

/// Mounts the root file system and attaches it in this mount namespace: over the folder that holds the upper layer, which
/// exists and which nothing else in this namespace needs any more, or over the prepared folder itself.
pub(crate) fn mount(rootfs: &Rootfs) -> Result<Root, Failure> {
    match rootfs {
        Rootfs::Folder { path } => {
            let tree = Tree::copy_path(path, true).at(Stage::Rootfs, || format!("open the root folder {path:?}"))?;
            attach(tree, Path::new(path))
        }
        Rootfs::Overlay { lower, upper, work } => {
            if lower.is_empty() {
                return Err(refused(Stage::Rootfs, "an overlay needs a lower layer"));
            }
            let place = Path::new(upper).parent().ok_or_else(|| refused(Stage::Rootfs, "the upper layer has no parent folder"))?;
            match overlay(lower, upper, work) {
                Ok(tree) => attach(tree, place),
                // A kernel before 6.8 (no "lowerdir+"), or a real mistake: then mount(2) makes it again.
                Err(Refusal { error, complaint }) if error.raw_os_error() == Some(EINVAL) => classic_overlay(lower, upper, work, place)
                    .map_err(|failure| Failure { message: with(failure.message, complaint), ..failure }),
                Err(Refusal { error, complaint }) => {
                    Err(error).at(Stage::Rootfs, || with(format!("mount the overlay of {} layers", lower.len()), complaint))
                }
            }
        }
    }
}

const EINVAL: i32 = 22;

struct Refusal {
    error: io::Error,
    complaint: Option<String>,
}

fn with(message: String, complaint: Option<String>) -> String {
    complaint.map_or_else(|| message.clone(), |complaint| format!("{message} ({complaint})"))
}

fn attach(tree: Tree, place: &Path) -> Result<Root, Failure> {
    let target = fd::open(place, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).at(Stage::Rootfs, || format!("open {}", quoted(place)))?;
    tree.attach(&target).at(Stage::Rootfs, || format!("attach the root file system to {}", quoted(place)))?;
    Ok(Root::from_fd(tree.into()))
}

/// One layer at a time by fsconfig(2): no limit of one page for all names.
fn overlay(lower: &[String], upper: &str, work: &str) -> Result<Tree, Refusal> {
    let silent = |error| Refusal { error, complaint: None };
    let context = FsContext::open("overlay").map_err(silent)?;
    let tell = |error| Refusal { error, complaint: context.complaint() };
    // Short names for paths that fsconfig does not take; open until the mount is made.
    let mut open = Vec::new();
    for layer in lower {
        let name = short(layer, &mut open).map_err(silent)?;
        context.set_string("lowerdir+", &name).map_err(tell)?;
    }
    for (key, path) in [("upperdir", upper), ("workdir", work)] {
        let name = short(path, &mut open).map_err(silent)?;
        context.set_string(key, &name).map_err(tell)?;
    }
    context.mount(0).map_err(tell)
}

fn short(path: &str, open: &mut Vec<OwnedFd>) -> io::Result<String> {
    if path.len() <= mount::MAX_VALUE {
        return Ok(path.to_owned());
    }
    let folder = open_folder(path)?;
    let name = format!("/proc/self/fd/{}", folder.as_raw_fd());
    open.push(folder);
    Ok(name)
}

fn open_folder(path: &str) -> io::Result<OwnedFd> {
    fd::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
}

/// By mount(2), whose options have one page: all layers by descriptor and relative to `/proc/self/fd`, which makes their
/// names as short as can be, free of characters that need escapes, and the limit about a thousand layers.
fn classic_overlay(lower: &[String], upper: &str, work: &str, place: &Path) -> Result<Root, Failure> {
    let open = |path: &str| open_folder(path).at(Stage::Rootfs, || format!("open the layer {path:?}"));
    let layers = lower.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    let (upper, work) = (open(upper)?, open(work)?);
    let names: Vec<String> = layers.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    let options = format!("lowerdir={},upperdir={},workdir={}", names.join(":"), upper.as_raw_fd(), work.as_raw_fd());
    let descriptors = fd::open("/proc/self/fd", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).at(Stage::Rootfs, || "open /proc/self/fd".to_owned())?;
    berth_sys::process::change_folder(descriptors.as_fd()).at(Stage::Rootfs, || "change to /proc/self/fd".to_owned())?;
    mount::mount_classic("overlay", place, "overlay", &options).at(Stage::Rootfs, || format!("mount the overlay of {} layers", lower.len()))?;
    Root::open(place).at(Stage::Rootfs, || format!("open {}", quoted(place)))
}
