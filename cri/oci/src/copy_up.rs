//! A new file system that starts with what it covers (`tmpcopyup`, an option of runc's, crun's and podman's).
//!
//! Everything is copied by handles: below the container's folder, which nobody else can change yet, nothing is followed.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use berth_plan::container::Mount;
use berth_plan::message::{Failure, Stage};
use berth_sys::Mode;
use berth_sys::path::{self, Root};

use crate::failure::{At, refused};
use crate::mounts;

/// The deepest folder, and the most files, that are copied.
const DEPTH: usize = 64;
const FILES: usize = 100_000;

pub(crate) fn mount(root: &Root, mount: &Mount, kind: &str, options: &[(String, String)]) -> Result<(), Failure> {
    let destination = &mount.destination;
    let act = || format!("fill {destination:?} with what it covers (tmpcopyup)");
    let target = root.mkdir_all(destination, Mode::from_raw_mode(0o755)).at(Stage::Mount, act)?;
    // Writable until it is filled.
    let attributes = mount.attr_set & !berth_sys::mount::RDONLY;
    let tree = mounts::new_filesystem(kind, options, attributes, destination)?;
    let mut left = FILES;
    copy(target.as_fd(), tree.as_fd(), DEPTH, &mut left).at(Stage::Mount, act)?;
    if left == 0 {
        return Err(refused(Stage::Mount, format!("{destination:?} has more than {FILES} files to copy (tmpcopyup)")));
    }
    tree.set_attributes(mount.attr_set, mount.attr_clear, false).at(Stage::Mount, act)?;
    mounts::set_new_propagation(&tree, mount)?;
    tree.attach(target).at(Stage::Mount, act)
}

fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize, left: &mut usize) -> io::Result<()> {
    path::copy_attributes(from, to)?;
    for name in path::names(from)? {
        if *left == 0 || depth == 0 {
            return Ok(());
        }
        *left -= 1;
        let name = OsStr::from_bytes(&name);
        let source = path::open_child(from, name)?;
        let facts = path::facts(source.as_fd())?;
        if facts.is_folder() {
            let made = path::make_folder(to, name, Mode::from_raw_mode(0o700))?;
            copy(source.as_fd(), made.as_fd(), depth - 1, left)?;
        } else if facts.is_link() {
            let target = path::link_target(from, name)?.unwrap_or_default();
            path::make_link(to, name, Path::new(&target))?;
        } else {
            path::copy_file(source.as_fd(), to, name)?;
        }
    }
    Ok(())
}
