//! Device nodes and links.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_plan::container::{Device, DeviceKind};
use berth_plan::message::{Failure, Stage};
use berth_sys::Mode;
use berth_sys::mount::Tree;
use berth_sys::path::{self, Facts, Root};

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
            if is_same(device, &facts) {
                Ok(())
            } else {
                Err(refused(Stage::Device, format!("{:?} exists and is another thing", device.path)))
            }
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => bind(root, device),
        other => other.at(Stage::Device, act),
    }
}

/// Where no nodes can be made: the host's node at the same path, if it is the same device.
fn bind(root: &Root, device: &Device) -> Result<(), Failure> {
    let act = || format!("bind the device {:?}", device.path);
    let tree = Tree::copy_path(&device.path, false).at(Stage::Device, act)?;
    let facts = path::facts(tree.as_fd()).at(Stage::Device, act)?;
    if !is_same(device, &facts) {
        return Err(refused(Stage::Device, format!("the host's {:?} is another device", device.path)));
    }
    let target = root.touch(&device.path, Mode::from_raw_mode(0o644)).at(Stage::Device, act)?;
    tree.attach(target).at(Stage::Device, act)
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
