//! The cgroup file systems inside a container, as seen through its cgroup namespace.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;

use berth_plan::container::{Hierarchy, Mount};
use berth_plan::message::{Failure, Stage};
use berth_sys::Mode;
use berth_sys::mount::{RDONLY, Tree};
use berth_sys::path::{self, Root};

use crate::failure::At;
use crate::mounts;

/// `bound` are trees to show in place of the hierarchies' roots, for a container without a cgroup namespace.
pub(crate) fn mount(
    root: &Root,
    mount: &Mount,
    hierarchies: &[Hierarchy],
    links: &[(String, String)],
    bound: &[Tree],
) -> Result<(), Failure> {
    let mut bound = bound.iter();
    let destination = &mount.destination;
    let target = mounts::ordinary_folder(root, destination, "cgroup")?;
    if let [(name, kind, options)] = hierarchies
        && name.is_empty()
    {
        if let Some(tree) = bound.next() {
            return tree.attach(target).at(Stage::Mount, || format!("bind the cgroup to {destination:?}"));
        }
        let tree = mounts::new_filesystem(kind, options, mount.attr_set, destination)?;
        mounts::set_new_propagation(&tree, mount)?;
        return tree.attach(target).at(Stage::Mount, || format!("mount {kind} to {destination:?}"));
    }
    // v1: a small file system of folders, one a hierarchy, that becomes read-only once it is complete.
    let mode = [("mode".to_owned(), "755".to_owned())];
    let folders = mounts::new_filesystem("tmpfs", &mode, mount.attr_set & !RDONLY, destination)?;
    mounts::set_new_propagation(&folders, mount)?;
    folders.attach(target).at(Stage::Mount, || format!("mount tmpfs to {destination:?}"))?;
    let folders = Root::from_fd(folders.into());
    for (name, kind, options) in hierarchies {
        // Ours alone until the program runs: nothing can be in the way.
        let folder = path::make_folder(folders.as_fd(), OsStr::new(name), Mode::from_raw_mode(0o755))
            .at(Stage::Mount, || format!("make {destination}/{name}"))?;
        if let Some(tree) = bound.next() {
            tree.attach(folder).at(Stage::Mount, || format!("bind the cgroup to {destination}/{name}"))?;
            continue;
        }
        let tree = mounts::new_filesystem(kind, options, mount.attr_set, &format!("{destination}/{name}"))?;
        mounts::set_new_propagation(&tree, mount)?;
        tree.attach(folder).at(Stage::Mount, || format!("mount {kind} to {destination}/{name}"))?;
    }
    for (name, to) in links {
        path::make_link(folders.as_fd(), OsStr::new(name), Path::new(to))
            .at(Stage::Mount, || format!("link {destination}/{name}"))?;
    }
    berth_sys::mount::set_attributes(folders.as_fd(), mount.attr_set, mount.attr_clear, false)
        .at(Stage::Mount, || format!("finish {destination:?}"))
}
