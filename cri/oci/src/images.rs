//! Images as volumes: their layers put together, read-only, and the part of them that is asked for.

use std::path::Path;

use berth_plan::message::{Failure, Stage};
use berth_sys::mount::{self, FsContext, Tree};
use berth_sys::namespace::{self, Namespaces};
use berth_sys::path::Root;
use berth_sys::{Mode, OFlags, fd};

use crate::failure::{At, refused};
use crate::idmaps::Layers;
use crate::rootfs;

/// A detached mount of an image's files. `sub_path` is resolved inside the image, links included.
///
/// Always an overlay, which can't be made writable again: a bind of a single layer could be, by whoever may mount inside,
/// and with it the layer of all other containers.
///
/// Something is mounted on the topmost layer and on /sys for a moment, so the mount namespace must be the caller's own,
/// and detached from others.
pub(crate) fn tree(layers: &[String], sub_path: &str, shown: &mut Layers<'_>) -> Result<Tree, Failure> {
    let Some(top) = layers.first() else {
        return Err(refused(Stage::Mount, "the image of a volume has no layers"));
    };
    for layer in layers {
        shown.show(layer)?;
    }
    let whole = match layers {
        [only] => with_nothing(only)?,
        several => rootfs::overlay_tree(several, None, Path::new(top))?,
    };
    if sub_path.is_empty() {
        return Ok(whole);
    }
    let act = || format!("open {sub_path:?} in the image of a volume");
    // Only what is attached can be copied in part.
    let target = fd::open(top, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).at(Stage::Mount, act)?;
    whole.attach(&target).at(Stage::Mount, act)?;
    let inside = fd::duplicate(&whole).map(Root::from_fd).and_then(|root| root.open_path(sub_path));
    let part = inside.and_then(|inside| Tree::copy(&inside, false)).at(Stage::Mount, act);
    whole.detach().at(Stage::Mount, act)?;
    part
}

/// An overlay without a writable layer needs two: this one and an empty one.
fn with_nothing(layer: &String) -> Result<Tree, Failure> {
    const PLACE: &str = "/sys";
    let act = || "mount an empty layer".to_owned();
    let place = fd::open(PLACE, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).at(Stage::Mount, act)?;
    let empty = FsContext::open("tmpfs").and_then(|context| context.mount(mount::RDONLY)).at(Stage::Mount, act)?;
    empty.attach(&place).at(Stage::Mount, act)?;
    let both = rootfs::overlay_tree(&[layer.clone(), PLACE.to_owned()], None, Path::new(layer));
    empty.detach().at(Stage::Mount, act)?;
    both
}

/// Whether an image has a path: as [`tree`] finds it, before anything is made of it. Blocks, on a thread of its own, and
/// leaves nothing mounted.
///
/// # Errors
/// A failure that names the path, or what kept the image from being looked at.
pub fn check(layers: &[String], sub_path: &str) -> Result<(), Failure> {
    let look = || {
        namespace::unshare(Namespaces::MOUNT).at(Stage::Mount, || "make a mount namespace".to_owned())?;
        mount::set_propagation_of("/", mount::SLAVE | mount::RECURSIVE)
            .at(Stage::Mount, || "detach from the host's mounts".to_owned())?;
        tree(layers, sub_path, &mut Layers::new(None)).map(drop)
    };
    // The thread ends with its mount namespace.
    let looked = std::thread::scope(|scope| scope.spawn(look).join());
    looked.unwrap_or_else(|_| Err(refused(Stage::Mount, "looking at the image failed")))
}
