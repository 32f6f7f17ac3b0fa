//! The root of a room: the house's files below, one file system in memory on top.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;
use nix::unistd::pivot_root;

use crate::house;

/// What the room's root has beside the house's.
pub(super) const UPPER: &str = "upper";
/// `/var/lib`: no overlay, as a runtime makes overlays in it.
pub(super) const LIB: &str = "lib";

/// More files than any scenario makes.
const PLENTY: u64 = 1_000_000;

const NONE: Option<&Path> = None;

/// Folders that start empty, on file systems of their own as usual.
const EMPTY: &[&str] = &["/run", "/var/log", "/etc/cni"];

/// Folders that get a file of ours sooner or later, which brings them to the upper side: they are brought before.
const TOUCHED: &[&str] = &[
    "/etc",
    "/opt",
    "/root",
    "/tmp",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib/systemd",
    "/usr/lib/systemd/system",
    "/usr/local",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/var",
];

/// Makes `disk` and a root on it, and moves into that. The mount namespace must be the room's own, without propagation.
pub(super) fn build(disk: &Path) -> Result<()> {
    // Said from the start, so that the mount looks the same once a limit is lifted again.
    let options = format!("mode=755,nr_inodes={PLENTY}");
    mount(Some("room"), disk, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).context("the room's disk")?;
    let root = disk.join("root");
    for folder in [UPPER, LIB, "work", "root"] {
        fs::create_dir(disk.join(folder))?;
    }
    let layers = format!("lowerdir=/,upperdir={},workdir={}", disk.join(UPPER).display(), disk.join("work").display());
    mount(Some("room"), &root, Some("overlay"), MsFlags::empty(), Some(layers.as_str())).context("the room's root")?;

    let place = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    for path in mounted_on_root()? {
        if path == Path::new("/sys") {
            mount(Some("sysfs"), &place(&path), Some("sysfs"), MsFlags::empty(), NONE).context("/sys for the room")?;
        } else if !left_out(&path) {
            bind(&path, &place(&path), MsFlags::MS_REC)?;
        }
    }
    // The new sysfs shows this network namespace's links; the hierarchies are on it.
    bind(Path::new("/sys/fs/cgroup"), &place(Path::new("/sys/fs/cgroup")), MsFlags::MS_REC)?;
    for folder in EMPTY {
        let options = Some("mode=755");
        mount(Some("room"), &place(Path::new(folder)), Some("tmpfs"), MsFlags::empty(), options).context(*folder)?;
    }
    bind(&disk.join(LIB), &place(Path::new("/var/lib")), MsFlags::empty())?;
    // Logs are written to the house's folder from in here, and the disk is looked at.
    let house = house::dir();
    bind(&house, &place(&house), MsFlags::empty())?;
    bind(disk, &place(disk), MsFlags::empty())?;

    env::set_current_dir(&root)?;
    pivot_root(".", ".").context("the room's root")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    env::set_current_dir("/")?;
    // A machine's mounts are shared.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SHARED, NONE)?;
    for folder in TOUCHED {
        if let Ok(meta) = fs::metadata(folder) {
            fs::set_permissions(folder, meta.permissions())?;
        }
    }
    Ok(())
}

/// Lets only so many more files be made; `None` lifts the limit.
pub(super) fn limit_files(disk: &Path, more: Option<u64>) -> Result<()> {
    let stat = statvfs(disk)?;
    let used = stat.files().saturating_sub(stat.files_free());
    let limit = more.map_or(PLENTY, |more| used + more);
    mount(NONE, disk, NONE, MsFlags::MS_REMOUNT, Some(format!("mode=755,nr_inodes={limit}").as_str()))
        .context("the size of the room's disk")
}

/// What the room has of its own, or gets in another way.
fn left_out(path: &Path) -> bool {
    EMPTY.iter().any(|empty| path.starts_with(empty)) || path.starts_with("/var/lib") || path.starts_with(house::dir())
}

fn bind(from: &Path, to: &Path, more: MsFlags) -> Result<()> {
    mount(Some(from), to, NONE, MsFlags::MS_BIND | more, NONE).with_context(|| format!("{} for the room", to.display()))
}

/// What is mounted on the root file system itself, the first at each place.
fn mounted_on_root() -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/thread-self/mountinfo")?;
    Ok(children_of_root(&text))
}

fn children_of_root(mountinfo: &str) -> Vec<PathBuf> {
    let fields = || mountinfo.lines().map(|line| line.split(' ').collect::<Vec<_>>()).filter(|fields| fields.len() > 4);
    // A root may be mounted over another one: the last counts.
    let Some(root) = fields().rfind(|fields| fields[4] == "/") else { return Vec::new() };
    fields().filter(|fields| fields[1] == root[0] && fields[4] != "/").map(|fields| fields[4].into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_mounted_on_the_root_itself_is_taken() {
        let text = "27 1 254:0 / / rw - ext4 /dev/vda rw\n22 27 0:21 / /proc rw - proc proc rw\n\
                    90 22 0:50 / /proc rw - proc proc rw\n31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n";
        assert_eq!(children_of_root(text), [PathBuf::from("/proc")]);
    }
}
