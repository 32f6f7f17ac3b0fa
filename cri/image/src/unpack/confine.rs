//! What the child gives up before it reads the first byte of an archive.

use std::fs::File;
use std::io;

use berth_guard::Guard;
use berth_sys::mount::{PRIVATE, RECURSIVE, Tree};
use berth_sys::namespace::{Namespaces, unshare};
use berth_sys::{caps, credentials, mount, rlimit, seccomp};

use super::filter;

/// CAP_CHOWN, DAC_OVERRIDE, FOWNER, FSETID, MKNOD, SETFCAP: what restoring owners, modes, devices and file capabilities takes.
const CAPABILITIES: u64 = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 27 | 1 << 31;

const RLIMIT_FSIZE: u32 = 1;
const RLIMIT_CORE: u32 = 4;
const RLIMIT_NPROC: u32 = 6;
const RLIMIT_NOFILE: u32 = 7;
const RLIMIT_AS: u32 = 9;

/// Address space. An archive's metadata is held in memory, so this bounds what it can make us hold.
const MEMORY: u64 = 1 << 30;

/// Makes the working folder the root of a mount namespace of its own and drops everything that applying an archive of
/// at most `bytes` does not need. The process must have one thread.
///
/// # Errors
/// Names the step that failed, with the kernel's answer.
pub(super) fn confine(bytes: u64) -> Result<(), String> {
    step("new namespaces", unshare(Namespaces::MOUNT.and(Namespaces::NET).and(Namespaces::IPC).and(Namespaces::UTS)))?;
    step("private mounts", mount::set_propagation_of("/", PRIVATE | RECURSIVE))?;
    if Guard::UnpackerPivots.stands() {
        step("new root", enter())?;
    }
    credentials::set_umask(0);
    for (resource, limit) in
        [(RLIMIT_FSIZE, bytes), (RLIMIT_CORE, 0), (RLIMIT_NPROC, 0), (RLIMIT_NOFILE, 256), (RLIMIT_AS, MEMORY)]
    {
        step(rlimit::name(resource), rlimit::set(resource, limit, limit))?;
    }
    let keep = CAPABILITIES & caps::bounding();
    step("ambient capabilities", caps::set_ambient(0))?;
    step("bounding capabilities", caps::limit_bounding(keep))?;
    step("capabilities", caps::set(keep, keep, 0))?;
    step("no new privileges", credentials::set_no_new_privileges())?;
    step("system call filter", seccomp::install(&filter::program()))
}

/// pivot_root(2) wants a mount: the folder is bound onto itself.
fn enter() -> io::Result<()> {
    let tree = Tree::copy_path(".", false)?;
    tree.attach(File::open(".")?)?;
    mount::pivot(std::os::fd::AsFd::as_fd(&tree))
}

fn step(name: &str, outcome: io::Result<()>) -> Result<(), String> {
    outcome.map_err(|error| format!("confining the unpacker: {name}: {error}"))
}
