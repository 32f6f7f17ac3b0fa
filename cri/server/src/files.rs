//! What a sandbox's containers find mounted in their /etc and /dev.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use berth_cri_core::compile::{NamespaceScope, SandboxPlan};
use berth_sys::mount::{self, FsContext};
use berth_sys::{Mode, OFlags};

/// What containerd gives /dev/shm.
const SHM_SIZE: &str = "67108864";

/// Writes resolv.conf, hosts and hostname into a sandbox's folder. It goes with the folder.
pub(crate) fn write(folder: &Path, plan: &SandboxPlan, node: &str) -> io::Result<()> {
    let copy = |path: &str| match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    };
    let resolv = match &plan.resolv_conf {
        Some(text) => text.clone().into_bytes(),
        None => copy("/etc/resolv.conf")?,
    };
    let hostname = if plan.hostname.is_empty() { node } else { &plan.hostname };
    let files =
        [("resolv.conf", resolv), ("hosts", copy("/etc/hosts")?), ("hostname", format!("{hostname}\n").into_bytes())];
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::write(&path, bytes)?;
        // Whatever our umask is: everybody in the pod reads them.
        fs::set_permissions(&path, Permissions::from_mode(0o644))?;
    }
    Ok(())
}

/// Mounts the sandbox's shared memory at `shm` in its folder, unless it uses the node's.
pub(crate) fn mount_shm(folder: &Path, plan: &SandboxPlan) -> io::Result<()> {
    if plan.ipc == NamespaceScope::Node {
        return Ok(());
    }
    let path = folder.join("shm");
    fs::create_dir_all(&path)?;
    berth_effect::run("shm-mount", || {
        let tmpfs = FsContext::open("tmpfs")?;
        tmpfs.set_string("source", "shm")?;
        tmpfs.set_string("mode", "1777")?;
        tmpfs.set_string("size", SHM_SIZE)?;
        let tree = tmpfs.mount(mount::NOSUID | mount::NODEV | mount::NOEXEC)?;
        let target = berth_sys::fd::open(&path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        tree.attach(target.as_fd())
    })
}

/// Unmounts it; nothing there is fine.
pub(crate) fn unmount_shm(folder: &Path) -> io::Result<()> {
    let path = folder.join("shm");
    if !path.exists() {
        return Ok(());
    }
    berth_effect::run("shm-unmount", || {
        loop {
            match mount::unmount(&path, true) {
                Ok(()) => {}
                // EINVAL: nothing is mounted there (any more).
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    })
}
