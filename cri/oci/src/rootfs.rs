//! The root file system: an overlay of the image's layers, or a prepared folder.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use berth_plan::container::{IdRange, Rootfs};
use berth_plan::message::{Failure, Stage};
use berth_sys::mount::{self, FsContext, Tree};
use berth_sys::path::{self, Root};
use berth_sys::{Mode, OFlags, fd, process};

use crate::failure::{At, describe, refused};
use crate::host::quoted;
use crate::idmaps::Layers;

/// Mounts the root file system and attaches it in this mount namespace.
pub(crate) fn mount(rootfs: &Rootfs) -> Result<Root, Failure> {
    attach(detached(rootfs)?, rootfs)
}

/// The root file system for a user namespace, detached: it is made by who may, and attached by who is inside.
pub(crate) fn mapped(rootfs: &Rootfs, ids: IdRange, layers: &mut Layers<'_>) -> Result<Tree, Failure> {
    match rootfs {
        Rootfs::Folder { path } => layers.folder(path),
        Rootfs::Overlay { lower, upper, .. } => {
            for layer in lower {
                layers.show(layer)?;
            }
            give_upper(upper, ids)?;
            detached(rootfs)
        }
    }
}

/// Files of the upper layer are written by users of the namespace, and its folder is the root folder's owner.
fn give_upper(upper: &str, ids: IdRange) -> Result<(), Failure> {
    let act = || format!("give {upper:?} to the user namespace");
    let folder = open_folder(upper).at(Stage::Rootfs, act)?;
    let facts = path::facts(folder.as_fd()).at(Stage::Rootfs, act)?;
    match (ids.outside(facts.uid), ids.outside(facts.gid)) {
        (Some(0), Some(0)) => Ok(()),
        // It was given before, or belongs to somebody else for a reason.
        _ if facts.uid != 0 => Ok(()),
        (Some(uid), Some(gid)) => path::give(folder.as_fd(), uid, gid).at(Stage::Rootfs, act),
        _ => Err(refused(Stage::Rootfs, "the user namespace has no user 0")),
    }
}

/// An overlay or the folder, attached nowhere.
pub(crate) fn detached(rootfs: &Rootfs) -> Result<Tree, Failure> {
    match rootfs {
        Rootfs::Folder { path } => {
            Tree::copy_path(path, true).at(Stage::Rootfs, || format!("open the root folder {path:?}"))
        }
        Rootfs::Overlay { lower, upper, work } => {
            if lower.is_empty() {
                return Err(refused(Stage::Rootfs, "an overlay needs a lower layer"));
            }
            forget_mount(work);
            overlay_tree(lower, Some((upper, work)), place(rootfs)?)
        }
    }
}

/// Takes away the mark with which overlayfs refuses to mount a volatile upper layer again: a start that was killed half-way
/// has left nothing there that anybody needs, and other containers have other layers.
fn forget_mount(work: &str) {
    // Failing, it is not there; of all else the mount itself complains.
    let _ = std::fs::remove_dir_all(Path::new(work).join("work/incompat/volatile"));
}

/// Attaches the root file system in this mount namespace: over the folder that holds the upper layer, which exists and
/// which nothing else in this namespace needs any more, or over the prepared folder itself.
pub(crate) fn attach(tree: Tree, rootfs: &Rootfs) -> Result<Root, Failure> {
    let place = place(rootfs)?;
    let target = fd::open(place, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
        .at(Stage::Rootfs, || format!("open {}", quoted(place)))?;
    tree.attach(&target).at(Stage::Rootfs, || format!("attach the root file system to {}", quoted(place)))?;
    Ok(Root::from_fd(tree.into()))
}

fn place(rootfs: &Rootfs) -> Result<&Path, Failure> {
    match rootfs {
        Rootfs::Folder { path } => Ok(Path::new(path)),
        Rootfs::Overlay { upper, .. } => {
            Path::new(upper).parent().ok_or_else(|| refused(Stage::Rootfs, "the upper layer has no parent folder"))
        }
    }
}

/// A detached overlay of layers, topmost first; without a writable one it can only be read. Older kernels mount it at
/// `place` for a moment.
///
/// A writable one is volatile: without that, the end of each container flushes the whole disk that its layer is on, and
/// the exit is not told before that is done. What a container has written outlives the container's end, but need not
/// outlive the machine's, since no container is started a second time.
pub(crate) fn overlay_tree(lower: &[String], own: Option<(&str, &str)>, place: &Path) -> Result<Tree, Failure> {
    // Layer by layer since Linux 6.8; older kernels take "lowerdir+" for an unknown option, and say so in their log.
    if !process::kernel_is_at_least(6, 8) {
        return classic_overlay(lower, own, place);
    }
    overlay(lower, own).map_err(|Refusal { error, complaint }| Failure {
        stage: Stage::Rootfs,
        errno: error.raw_os_error().unwrap_or(0),
        message: format!(
            "mount the overlay of {} layers: {}",
            lower.len(),
            complaint.unwrap_or_else(|| describe(&error))
        ),
    })
}

struct Refusal {
    error: io::Error,
    complaint: Option<String>,
}

/// One layer at a time by fsconfig(2): no limit of one page for all names.
fn overlay(lower: &[String], own: Option<(&str, &str)>) -> Result<Tree, Refusal> {
    let silent = |error| Refusal { error, complaint: None };
    let context = FsContext::open("overlay").map_err(silent)?;
    let tell = |error| Refusal { error, complaint: context.complaint() };
    // Short names for paths that fsconfig does not take; open until the mount is made.
    let mut open = Vec::new();
    for layer in lower {
        let name = short(layer, &mut open).map_err(silent)?;
        context.set_string("lowerdir+", &name).map_err(tell)?;
    }
    if let Some((upper, work)) = own {
        for (key, path) in [("upperdir", upper), ("workdir", work)] {
            let name = short(path, &mut open).map_err(silent)?;
            context.set_string(key, &name).map_err(tell)?;
        }
        context.set_flag("volatile").map_err(tell)?;
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
fn classic_overlay(lower: &[String], own: Option<(&str, &str)>, place: &Path) -> Result<Tree, Failure> {
    let open = |path: &str| open_folder(path).at(Stage::Rootfs, || format!("open the layer {path:?}"));
    let layers = lower.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<String> = layers.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    let mut options = format!("lowerdir={}", names.join(":"));
    let own = own.map(|(upper, work)| Ok::<_, Failure>((open(upper)?, open(work)?))).transpose()?;
    if let Some((upper, work)) = &own {
        options.push_str(&format!(",upperdir={},workdir={},volatile", upper.as_raw_fd(), work.as_raw_fd()));
    }
    let descriptors = fd::open("/proc/self/fd", OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
        .at(Stage::Rootfs, || "open /proc/self/fd".to_owned())?;
    process::change_folder(descriptors.as_fd()).at(Stage::Rootfs, || "change to /proc/self/fd".to_owned())?;
    let act = || format!("mount the overlay of {} layers", lower.len());
    mount::mount_classic("overlay", place, "overlay", &options).at(Stage::Rootfs, act)?;
    // As new kernels give it: attached nowhere, so that both go on in one way.
    let tree = Tree::copy_path(place, false).at(Stage::Rootfs, act)?;
    mount::unmount(place, true).at(Stage::Rootfs, act)?;
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use berth_sys::namespace::{self, Namespaces};

    use super::*;

    /// Layers 0 (topmost) to `count - 1`, each with a file of its own and one that all have.
    fn layers(name: &str, count: usize) -> (std::path::PathBuf, Vec<String>) {
        let folder = std::env::temp_dir().join(format!("berth-oci-{}-{name}", std::process::id()));
        let text = |path: std::path::PathBuf| path.to_str().expect("text").to_owned();
        let make = |n: usize| {
            let layer = folder.join(format!("layer:with,signs\\{n}"));
            fs::create_dir_all(&layer).expect("layer");
            fs::write(layer.join("all"), n.to_string()).expect("file");
            fs::write(layer.join(format!("only{n}")), "").expect("file");
            text(layer)
        };
        let lower = (0..count).map(make).collect();
        for name in ["own/upper", "own/work"] {
            fs::create_dir_all(folder.join(name)).expect("folder");
        }
        (folder, lower)
    }

    type MountLayers = fn(&[String], (&str, &str), &Path) -> Result<Tree, Failure>;

    /// Mounts in a mount namespace of a thread of its own, which also has its own working directory.
    fn seen(name: &str, count: usize, mount: MountLayers) {
        let (folder, lower) = layers(name, count);
        let own = folder.join("own");
        let (upper, work) = (format!("{}/upper", own.display()), format!("{}/work", own.display()));
        let worker = std::thread::spawn(move || {
            namespace::unshare(Namespaces::MOUNT).expect("the test needs root");
            mount::set_propagation_of("/", mount::PRIVATE | mount::RECURSIVE).expect("private");
            // Once by a start that dies, and again.
            drop(mount(&lower, (&upper, &work), &own).expect("mount"));
            forget_mount(&work);
            let tree = mount(&lower, (&upper, &work), &own).expect("mount");
            let rootfs = Rootfs::Overlay { lower: lower.clone(), upper: upper.clone(), work };
            let root = attach(tree, &rootfs).expect("attach");
            assert_eq!(root.read("all", 10).expect("read"), b"0");
            root.open_path(format!("only{}", lower.len() - 1)).expect("the lowest layer");
            root.mkdir_all("new", Mode::from_raw_mode(0o755)).expect("write");
            assert!(Path::new(&upper).metadata().is_err(), "the overlay covers its own folder");
        });
        let outcome = worker.join();
        assert!(folder.join("own/upper/new").is_dir());
        fs::remove_dir_all(&folder).expect("clean up");
        outcome.expect("the thread's checks hold");
    }

    #[test]
    fn older_kernels_get_all_layers_in_one_page() {
        seen("classic", 120, |lower, own, place| classic_overlay(lower, Some(own), place));
    }

    #[test]
    fn newer_kernels_get_layer_by_layer() {
        seen("modern", 120, |lower, own, _| {
            overlay(lower, Some(own)).map_err(|refusal| refused(Stage::Rootfs, format!("{:?}", refusal.complaint)))
        });
    }
}
