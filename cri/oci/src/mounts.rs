//! The plan's mounts, in order.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use berth_guard::Guard;
use berth_plan::container::{Mount, MountSource};
use berth_plan::message::{Failure, Stage};
use berth_sys::Mode;
use berth_sys::mount::{FsContext, Tree};
use berth_sys::path::{self, Root};

use crate::failure::{At, refused};
use crate::idmaps::{IdMaps, Layers};
use crate::{cgroups, images};

/// A mount, and a detached tree of its source where that is the host's.
pub(crate) struct Source<'a> {
    mount: &'a Mount,
    tree: Option<Tree>,
}

/// Takes detached copies of all bind sources, by the host's paths.
pub(crate) fn open_sources<'a>(mounts: &'a [Mount], ids: &mut IdMaps) -> Result<Vec<Source<'a>>, Failure> {
    let mut sources = Vec::with_capacity(mounts.len());
    for mount in mounts {
        let mut source = Source { mount, tree: None };
        if let MountSource::Bind { path, recursive } = &mount.source {
            let tree =
                Tree::copy_path(path, *recursive).at(Stage::Mount, || format!("open the mount source {path:?}"))?;
            if let Some(range) = mount.idmap {
                ids.apply(&tree, range, path)?;
            }
            source.tree = Some(tree);
        }
        sources.push(source);
    }
    Ok(sources)
}

/// Puts the images of volumes together. By then nothing that is mounted here reaches the host.
pub(crate) fn open_images(sources: &mut [Source<'_>], layers: &mut Layers<'_>) -> Result<(), Failure> {
    for source in sources {
        if let MountSource::Image { layers: paths, sub_path } = &source.mount.source {
            source.tree = Some(images::tree(paths, sub_path, layers)?);
        }
    }
    Ok(())
}

/// Makes the mounts, in a user namespace of the pod's or in the node's.
pub(crate) fn mount_all(root: &Root, sources: Vec<Source<'_>>, in_user_namespace: bool) -> Result<(), Failure> {
    for Source { mount, tree } in sources {
        match (&mount.source, tree) {
            (MountSource::Filesystem { kind, options }, _) => {
                filesystem(root, mount, kind, options, in_user_namespace)?;
            }
            (MountSource::Cgroup { hierarchies, links }, _) => cgroups::mount(root, mount, hierarchies, links, &[])?,
            (MountSource::Bind { .. } | MountSource::Image { .. }, Some(tree)) => bind_tree(root, mount, &tree)?,
            (MountSource::Bind { .. } | MountSource::Image { .. }, None) => {
                return Err(refused(Stage::Mount, format!("the source of {:?} was not opened", mount.destination)));
            }
        }
    }
    Ok(())
}

pub(crate) fn filesystem(
    root: &Root,
    mount: &Mount,
    kind: &str,
    options: &[(String, String)],
    in_user_namespace: bool,
) -> Result<(), Failure> {
    const EPERM: i32 = 1;
    let destination = &mount.destination;
    // Devices are made in /dev afterwards, so it has to be the folder of that name, too.
    let ordinary = matches!(kind, "proc" | "sysfs") || normal(destination) == "/dev";
    let target = if ordinary && Guard::OrdinaryFolders.stands() {
        ordinary_folder(root, destination, kind)?
    } else {
        folder(root, destination)?
    };
    let tree = match new_filesystem(kind, options, mount.attr_set, destination) {
        // A user namespace may only make one that shows its own network, and no more than the host's own mount does.
        Err(failure) if kind == "sysfs" && in_user_namespace && failure.errno == EPERM => {
            let act = || format!("bind the host's /sys to {destination:?}");
            let tree = Tree::copy_path("/sys", true).at(Stage::Mount, act)?;
            tree.set_attributes(mount.attr_set, 0, true).at(Stage::Mount, act)?;
            tree
        }
        other => other?,
    };
    set_new_propagation(&tree, mount)?;
    tree.attach(target).at(Stage::Mount, || format!("mount {kind} to {destination:?}"))
}

/// A detached mount of a new file system.
pub(crate) fn new_filesystem(
    kind: &str,
    options: &[(String, String)],
    attributes: u64,
    destination: &str,
) -> Result<Tree, Failure> {
    let act = || format!("mount {kind} to {destination:?}");
    let context = FsContext::open(kind).at(Stage::Mount, act)?;
    for (key, value) in options {
        context.set(key, value).at(Stage::Mount, || {
            format!("mount {kind} to {destination:?}: option {key}={value}{}", complaint(&context))
        })?;
    }
    context.mount(attributes).at(Stage::Mount, || format!("mount {kind} to {destination:?}{}", complaint(&context)))
}

fn complaint(context: &FsContext) -> String {
    context.complaint().map_or_else(String::new, |text| format!(" ({text})"))
}

fn bind_tree(root: &Root, mount: &Mount, tree: &Tree) -> Result<(), Failure> {
    finish_bound(tree, mount)?;
    attach_bound(root, &mount.destination, tree)
}

/// Gives a bound tree what its mount says.
pub(crate) fn finish_bound(tree: &Tree, mount: &Mount) -> Result<(), Failure> {
    let act = || format!("mount to {:?}", mount.destination);
    tree.set_attributes(mount.attr_set, mount.attr_clear, mount.recursive_attr).at(Stage::Mount, act)?;
    set_propagation(tree, mount)
}

/// Attaches a tree that is finished.
pub(crate) fn attach_bound(root: &Root, destination: &str, tree: &Tree) -> Result<(), Failure> {
    let act = || format!("mount to {destination:?}");
    let facts = path::facts(tree.as_fd()).at(Stage::Mount, act)?;
    let target = if facts.is_folder() {
        folder(root, destination)?
    } else {
        root.touch(destination, Mode::from_raw_mode(0o644)).at(Stage::Mount, || format!("make {destination:?}"))?
    };
    refuse_inside_proc(&target, tree, destination)?;
    tree.attach(target).at(Stage::Mount, act)
}

/// A volume over a part of procfs could feed false facts to whoever reads them, us among them. Files that are known to be
/// replaced for good reasons (lxcfs) are free; so is procfs itself.
fn refuse_inside_proc(target: &OwnedFd, tree: &Tree, destination: &str) -> Result<(), Failure> {
    const FREE: [&str; 10] = [
        "/proc/cpuinfo",
        "/proc/diskstats",
        "/proc/loadavg",
        "/proc/meminfo",
        "/proc/slabinfo",
        "/proc/stat",
        "/proc/swaps",
        "/proc/sys/crypto/fips_enabled",
        "/proc/sys/kernel/ns_last_pid",
        "/proc/uptime",
    ];
    let is_proc = |fd: &dyn Fn() -> std::io::Result<bool>| fd().at(Stage::Mount, || format!("look at {destination:?}"));
    if !Guard::NothingInProc.stands() {
        return Ok(());
    }
    if !is_proc(&|| path::is_procfs(target.as_fd()))? || is_proc(&|| path::is_procfs(tree.as_fd()))? {
        return Ok(());
    }
    if FREE.contains(&normal(destination).as_str()) {
        return Ok(());
    }
    Err(refused(Stage::Mount, format!("{destination:?} cannot be mounted because it is inside /proc")))
}

/// The path without `.`, `..` and double slashes.
fn normal(path: &str) -> String {
    let mut parts: Vec<&std::ffi::OsStr> = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => parts.push(name),
            Component::ParentDir => drop(parts.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    parts.iter().fold(String::new(), |path, part| format!("{path}/{}", part.to_string_lossy()))
}

/// As [`set_propagation`] for a file system that was just made, which is private already.
pub(crate) fn set_new_propagation(tree: &Tree, mount: &Mount) -> Result<(), Failure> {
    if mount.propagation == 0 { Ok(()) } else { set_propagation(tree, mount) }
}

fn set_propagation(tree: &Tree, mount: &Mount) -> Result<(), Failure> {
    let propagation = if mount.propagation == 0 {
        berth_sys::mount::PRIVATE | berth_sys::mount::RECURSIVE
    } else {
        mount.propagation
    };
    tree.set_propagation(propagation).at(Stage::Mount, || format!("set the propagation of {:?}", mount.destination))
}

fn folder(root: &Root, destination: &str) -> Result<OwnedFd, Failure> {
    root.mkdir_all(destination, Mode::from_raw_mode(0o755)).at(Stage::Mount, || format!("make {destination:?}"))
}

/// A folder that is reached without any link: an image whose `/proc` leads elsewhere would get a procfs where nobody
/// looks for one, and a false one at `/proc` (CVE-2019-19921, CVE-2023-27561).
pub(crate) fn ordinary_folder(root: &Root, destination: &str, kind: &str) -> Result<OwnedFd, Failure> {
    const ELOOP: i32 = 40;
    let found = match root.open_path_no_links(destination) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            folder(root, destination)?;
            root.open_path_no_links(destination)
        }
        other => other,
    };
    let ordinary =
        || refused(Stage::Mount, format!("filesystem {kind:?} must be mounted on ordinary directory {destination:?}"));
    match found {
        Err(error) if error.raw_os_error() == Some(ELOOP) => Err(ordinary()),
        Err(error) => Err(error).at(Stage::Mount, || format!("open {destination:?}")),
        Ok(found) if path::facts(found.as_fd()).is_ok_and(|facts| facts.is_folder()) => Ok(found),
        Ok(_) => Err(ordinary()),
    }
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn paths_are_compared_in_their_normal_form() {
        assert_eq!(normal("/proc//sys/../stat/."), "/proc/stat");
        assert_eq!(normal("/../proc/uptime"), "/proc/uptime");
    }
}
