//! A house's own part of every cgroup hierarchy, seen from inside as the whole.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// How often a removal is tried: the last process may still be on its way out.
const ATTEMPTS: u32 = 50;

/// The file with a cgroup's processes; what is written to it joins.
const PROCS: &str = "cgroup.procs";

/// The writer, whatever its number is in whatever namespace.
const SELF: &str = "0";

/// A mounted hierarchy.
#[derive(Debug)]
struct Hierarchy {
    mounted: PathBuf,
    kind: String,
    options: String,
}

impl Hierarchy {
    fn is_v2(&self) -> bool {
        self.kind == "cgroup2"
    }
}

/// The cgroup for processes where a cgroup that hands controllers down must have none itself (v2).
const LEAF: &str = "house";

/// Makes an empty cgroup of this name at the top of every hierarchy.
pub(super) fn make(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let own = hierarchy.mounted.join(name);
        fs::create_dir(&own).with_context(|| own.display().to_string())?;
        // A new cpuset has neither processors nor memory. Where there is no such file, nothing is to be copied.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = fs::read(hierarchy.mounted.join(file)) {
                fs::write(own.join(file), value)?;
            }
        }
        if hierarchy.is_v2() {
            delegate(&hierarchy.mounted)?;
        }
    }
    Ok(())
}

/// Moves this process into the cgroups of that name and mounts them in the place of the whole hierarchies. The mount
/// namespace must be its own.
pub(super) fn enter(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        join(&hierarchy.mounted.join(name), SELF)?;
    }
    unshare(CloneFlags::CLONE_NEWCGROUP)?;
    mount_again(SELF).map(drop)
}

/// Makes cgroups of this name for a machine within the house and returns the files that its first process writes itself
/// to before it makes its cgroup namespace.
pub(crate) fn make_inner(name: &str) -> Result<Vec<PathBuf>> {
    make(name)?;
    Ok(hierarchies()?.iter().map(|hierarchy| hierarchy.mounted.join(name).join(PROCS)).collect())
}

/// In that namespace and a mount namespace of its own: shows the machine's own part as the whole, and returns the files
/// that its further processes write themselves to. `first` is the process id of its first.
pub(crate) fn mount_inner(first: u32) -> Result<Vec<PathBuf>> {
    mount_again(&first.to_string())
}

/// Mounts the cgroup namespace's part of every hierarchy in the place of the whole; `first`, in its root, makes room.
fn mount_again(first: &str) -> Result<Vec<PathBuf>> {
    let mut entrances = Vec::new();
    for hierarchy in hierarchies()? {
        let place = &hierarchy.mounted;
        umount2(place, MntFlags::MNT_DETACH)?;
        let options = Some(hierarchy.options.as_str()).filter(|_| !hierarchy.is_v2());
        mount(Some("cgroup"), place, Some(hierarchy.kind.as_str()), MsFlags::empty(), options)
            .with_context(|| format!("mounting {} again", place.display()))?;
        if hierarchy.is_v2() {
            // Only a cgroup without processes can hand controllers down.
            let leaf = place.join(LEAF);
            fs::create_dir_all(&leaf)?;
            join(&leaf, first)?;
            delegate(place)?;
            entrances.push(leaf.join(PROCS));
        } else {
            entrances.push(place.join(PROCS));
        }
    }
    Ok(entrances)
}

/// Removes the cgroups of that name, whose processes have ended.
pub(crate) fn remove(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let own = hierarchy.mounted.join(name);
        let mut left = ATTEMPTS;
        loop {
            match remove_tree(&own) {
                Ok(()) => break,
                Err(error) if left == 0 => return Err(error).with_context(|| own.display().to_string()),
                Err(_) => left -= 1,
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

fn remove_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

fn join(cgroup: &Path, process: &str) -> Result<()> {
    fs::write(cgroup.join(PROCS), process).with_context(|| cgroup.display().to_string())
}

/// Lets the children of a v2 cgroup have its controllers.
fn delegate(cgroup: &Path) -> Result<()> {
    let controllers = fs::read_to_string(cgroup.join("cgroup.controllers"))?;
    for controller in controllers.split_whitespace() {
        fs::write(cgroup.join("cgroup.subtree_control"), format!("+{controller}"))
            .with_context(|| format!("{controller} for the children of {}", cgroup.display()))?;
    }
    Ok(())
}

fn hierarchies() -> Result<Vec<Hierarchy>> {
    // A thread may be in a mount namespace of its own.
    let text = fs::read_to_string("/proc/thread-self/mountinfo")?;
    Ok(text.lines().filter_map(hierarchy).collect())
}

fn hierarchy(line: &str) -> Option<Hierarchy> {
    let (head, tail) = line.split_once(" - ")?;
    let mut tail = tail.split(' ');
    let (kind, _, options) = (tail.next()?, tail.next()?, tail.next()?);
    if kind != "cgroup" && kind != "cgroup2" {
        return None;
    }
    // A named hierarchy has no controller, which mount(2) wants to be told.
    let own = options.split(',').filter(|option| !["rw", "ro", "xattr"].contains(option)).collect::<Vec<_>>().join(",");
    let options = if own.contains("name=") { format!("none,{own}") } else { own };
    Some(Hierarchy { mounted: head.split(' ').nth(4)?.into(), kind: kind.to_owned(), options })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_known_with_what_mounts_them_again() {
        let line = "30 24 0:26 / /sys/fs/cgroup/systemd rw,relatime shared:9 - cgroup cgroup rw,xattr,name=systemd";
        let named = hierarchy(line).expect("a hierarchy");
        assert_eq!((named.options.as_str(), named.is_v2()), ("none,name=systemd", false));
        let line = "31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct";
        assert_eq!(hierarchy(line).expect("a hierarchy").options, "cpu,cpuacct");
        assert!(hierarchy("31 24 0:27 / /sys rw - sysfs sysfs rw").is_none());
    }
}
