//! `berth-shim --probe DIR`: what user namespaces of pods can do here. A program with one thread has to find out.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use berth_sys::mount::{self, FsContext, Tree};
use berth_sys::namespace::{self, Namespaces};
use berth_sys::{Mode, OFlags, fd, userns};

/// Ids of the namespace that is tried with.
const HOST: u32 = 100_000;
const LENGTH: u32 = 65_536;

/// Whether files below `folder`, overlays of them and those of a tmpfs can be shown with the ids of a user namespace.
///
/// # Errors
/// What can't be done, in words.
pub(crate) fn user_namespaces(folder: &Path) -> io::Result<()> {
    let user = userns::make(HOST, LENGTH).map_err(at("make a user namespace"))?;
    namespace::unshare(Namespaces::MOUNT)?;
    mount::set_propagation_of("/", mount::PRIVATE | mount::RECURSIVE)?;
    let tmpfs = FsContext::open("tmpfs")?.mount(0)?;
    tmpfs.set_ids(user.as_fd(), false).map_err(at("show a tmpfs with other ids"))?;
    let tree = Tree::copy_path(folder, false)?;
    tree.set_ids(user.as_fd(), false).map_err(at("show the runtime's folder with other ids"))?;
    // An overlay takes it as a layer only where it can deal with the ids.
    let place = |path: &Path| fd::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty());
    tree.attach(place(folder)?)?;
    let overlay = FsContext::open("overlay")?;
    let name = folder.to_str().filter(|name| name.len() <= mount::MAX_VALUE && !name.contains([':', '\\', ',']));
    let name = name.ok_or_else(|| io::Error::other("the runtime's folder has a name that can't be tried"))?;
    // Two layers are the least without a writable one; no layer may be within another, so the second is a new file system.
    let second = FsContext::open("tmpfs")?.mount(0)?;
    second.attach(place(Path::new("/proc"))?)?;
    overlay.set_string("lowerdir", &format!("{name}:/proc"))?;
    overlay.mount(mount::RDONLY).map(drop).map_err(at("make an overlay of a layer with other ids"))
}

fn at(act: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{act}: {error}"))
}
