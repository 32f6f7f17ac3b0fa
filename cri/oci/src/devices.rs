//! Device nodes and links.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_guard::Guard;
use berth_plan::container::{Device, DeviceKind};
use berth_plan::message::{Failure, Stage};
use berth_sys::mount::{FsContext, NOEXEC, NOSUID, Tree};
use berth_sys::path::{self, Facts, Root};
use berth_sys::{Mode, OFlags, fd};

use crate::failure::{At, refused};

const FOLDER: Mode = Mode::from_bits_retain(0o755);

pub(crate) fn make_all(root: &Root, devices: &[Device]) -> Result<(), Failure> {
    for device in devices {
        let (folder, name) = root
            .make_parent(&device.path, FOLDER)
            .at(Stage::Device, || format!("make the folder of {:?}", device.path))?;
        make(root, device, &folder, &name)?;
    }
    Ok(())
}

fn make(root: &Root, device: &Device, folder: &OwnedFd, name: &OsStr) -> Result<(), Failure> {
    let act = || format!("make the device {:?}", device.path);
    let character = device.kind == DeviceKind::Character;
    let mode = Mode::from_raw_mode(device.mode & 0o7777);
    match path::make_device(folder.as_fd(), name, character, device.major, device.minor, mode, device.uid, device.gid) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let there = root.open_path_nofollow(&device.path).at(Stage::Device, act)?;
            let facts = path::facts(there.as_fd()).at(Stage::Device, act)?;
            if is_same(device, &facts) || !Guard::SameDevice.stands() {
                Ok(())
            } else {
                Err(refused(Stage::Device, format!("{:?} exists and is another thing", device.path)))
            }
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => bind(root, device),
        other => other.at(Stage::Device, act),
    }
}

/// Nodes for a user namespace, which can make none: made outside, on a file system of the host's own kind, to be bound
/// inside. Something is mounted on /dev for a moment, so the mount namespace must be the caller's own, and detached from
/// others.
pub(crate) fn outside(devices: &[Device]) -> Result<Vec<Tree>, Failure> {
    let act = || "make device nodes".to_owned();
    let tmpfs = FsContext::open("tmpfs").and_then(|context| {
        context.set_string("mode", "755")?;
        context.mount(NOSUID | NOEXEC)
    });
    let tmpfs = tmpfs.at(Stage::Device, act)?;
    let mut nodes = Vec::with_capacity(devices.len());
    let mut names = Vec::with_capacity(devices.len());
    for (number, device) in devices.iter().enumerate() {
        let name = OsString::from(number.to_string());
        let character = device.kind == DeviceKind::Character;
        let mode = Mode::from_raw_mode(device.mode & 0o7777);
        let Device { major, minor, uid, gid, .. } = *device;
        match path::make_device(tmpfs.as_fd(), &name, character, major, minor, mode, uid, gid) {
            // Not even here: the host's own node, then.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => nodes.push(Some(host_node(device)?)),
            other => {
                other.at(Stage::Device, || format!("make the device {:?}", device.path))?;
                nodes.push(None);
            }
        }
        names.push(name);
    }
    // Only what is attached can be copied.
    let place = fd::open("/dev", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).at(Stage::Device, act)?;
    tmpfs.attach(&place).at(Stage::Device, act)?;
    let made = Root::from_fd(fd::duplicate(&tmpfs).at(Stage::Device, act)?);
    let copy = |(node, name): (Option<Tree>, &OsString)| match node {
        Some(node) => Ok(node),
        None => made.open_path_nofollow(name).and_then(|node| Tree::copy(&node, false)).at(Stage::Device, act),
    };
    let copies = nodes.into_iter().zip(&names).map(copy).collect();
    tmpfs.detach().at(Stage::Device, act)?;
    copies
}

/// Binds the nodes made by [`outside`] to their places.
pub(crate) fn attach_all(root: &Root, devices: &[Device], nodes: &[Tree]) -> Result<(), Failure> {
    for (device, node) in devices.iter().zip(nodes) {
        let act = || format!("bind the device {:?}", device.path);
        root.make_parent(&device.path, FOLDER).at(Stage::Device, act)?;
        let target = root.touch(&device.path, Mode::from_raw_mode(0o644)).at(Stage::Device, act)?;
        node.attach(target).at(Stage::Device, act)?;
    }
    Ok(())
}

/// Where no nodes can be made: the host's node at the same path, if it is the same device.
fn bind(root: &Root, device: &Device) -> Result<(), Failure> {
    let act = || format!("bind the device {:?}", device.path);
    let tree = host_node(device)?;
    let target = root.touch(&device.path, Mode::from_raw_mode(0o644)).at(Stage::Device, act)?;
    tree.attach(target).at(Stage::Device, act)
}

fn host_node(device: &Device) -> Result<Tree, Failure> {
    let act = || format!("open the host's device {:?}", device.path);
    let tree = Tree::copy_path(&device.path, false).at(Stage::Device, act)?;
    let facts = path::facts(tree.as_fd()).at(Stage::Device, act)?;
    if is_same(device, &facts) {
        return Ok(tree);
    }
    Err(refused(Stage::Device, format!("the host's {:?} is another device", device.path)))
}

fn is_same(device: &Device, facts: &Facts) -> bool {
    match device.kind {
        DeviceKind::Character => facts.is_character_device(device.major, device.minor),
        DeviceKind::Block => facts.is_block_device(device.major, device.minor),
    }
}

/// Links where nothing is yet; what the image brought stays.
pub(crate) fn link_all(root: &Root, links: &[(String, String)]) -> Result<(), Failure> {
    for (link, target) in links {
        let act = || format!("link {link:?} to {target:?}");
        let (folder, name) = root.make_parent(link, FOLDER).at(Stage::Device, act)?;
        match path::make_link(folder.as_fd(), &name, Path::new(target)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.at(Stage::Device, act)?,
        }
    }
    Ok(())
}
