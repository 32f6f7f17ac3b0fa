//! The child's side of a container's first process.

use std::os::fd::{AsFd, OwnedFd};

use berth_guard::Guard;
use berth_plan::container::Container;
use berth_plan::message::{Failure, Stage};
use berth_plan::{MAX_PLAN, codec};
use berth_sys::mount::Tree;
use berth_sys::namespace::{self, Namespaces};
use berth_sys::path::Root;
use berth_sys::{Mode, credentials, memfd, mount, process as sys};

use crate::failure::{At, refused};
use crate::host::{self, Host};
use crate::idmaps::{IdMaps, Layers};
use crate::{delegate, devices, launch, masks, mounts, process, rootfs, sysctl, terminal, userns};

/// Runs in the fork: see [`crate::launch`] for the order of the descriptors.
pub(crate) fn child(descriptors: Vec<OwnedFd>) -> i32 {
    let mut descriptors = descriptors.into_iter();
    let (Some(report), Some(plan)) = (descriptors.next(), descriptors.next()) else { return 1 };
    match become_container(&report, plan, descriptors) {
        Err(failure) => launch::tell_failure(&report, failure),
        Ok(status) => status,
    }
}

/// Returns for what is left behind only: the process that has prepared things for one in a user namespace.
fn become_container(report: &OwnedFd, memory: OwnedFd, rest: std::vec::IntoIter<OwnedFd>) -> Result<i32, Failure> {
    // Nobody inside may look into this process while it still is more than the container (CVE-2016-9962).
    credentials::set_dumpable(false).at(Stage::Fork, || "hide from ptrace".to_owned())?;
    let plan: Container = read_plan(&memory)?;
    drop(memory);
    if let Some(delegate) = &plan.delegate {
        return delegate::make_container(report, &plan, delegate);
    }
    if let Some(ids) = plan.user {
        return userns::become_container(report, &plan, ids, rest);
    }
    lead_session(true)?;
    host::join_cgroups(rest.collect())?;
    own_namespaces(&plan)?;

    let host = Host::open()?;
    host.set_oom_score(plan.process.oom_score_adj.unwrap_or(0))?;
    // Modes in the plan are meant as they are.
    credentials::set_umask(0);
    // Copies of bind sources keep the propagation that the host's mounts have, so they are taken first; from then on
    // nothing that is mounted here reaches the host.
    let mut sources = mounts::open_sources(&plan.mounts, &mut IdMaps::default())?;
    detach_from_host()?;
    mounts::open_images(&mut sources, &mut Layers::new(None))?;

    let root = rootfs::mount(&plan.rootfs)?;
    finish(report, &plan, host, root, sources, None)
}

/// `own_keyring` unless the process is to share its launcher's keys.
pub(crate) fn lead_session(own_keyring: bool) -> Result<(), Failure> {
    sys::new_session().at(Stage::Fork, || "make a session".to_owned())?;
    // Keys of the host's session are none of the container's. Quotas and outer sandboxes may forbid a keyring; a container
    // without one of its own is what other runtimes then start, too.
    if own_keyring {
        let _ = credentials::new_session_keyring();
    }
    Ok(())
}

/// What is made or set after the process is in its cgroups and in its other namespaces.
pub(crate) fn own_namespaces(plan: &Container) -> Result<(), Failure> {
    if plan.namespaces.cgroup {
        namespace::unshare(Namespaces::CGROUP).at(Stage::Namespace, || "make a cgroup namespace".to_owned())?;
    }
    if let Some(hostname) = plan.hostname.as_ref().filter(|_| plan.namespaces.uts) {
        namespace::set_hostname(hostname).at(Stage::Namespace, || format!("set the host name {hostname:?}"))?;
    }
    Ok(())
}

pub(crate) fn detach_from_host() -> Result<(), Failure> {
    mount::set_propagation_of("/", mount::SLAVE | mount::RECURSIVE)
        .at(Stage::Mount, || "detach from the host's mounts".to_owned())
}

/// From an attached root file system to the program. `nodes` are the plan's devices, where they were made elsewhere.
pub(crate) fn finish(
    report: &OwnedFd,
    plan: &Container,
    host: Host,
    root: Root,
    sources: Vec<mounts::Source<'_>>,
    nodes: Option<Vec<Tree>>,
) -> Result<i32, Failure> {
    mounts::mount_all(&root, sources, plan.user.is_some())?;
    match nodes {
        None => devices::make_all(&root, &plan.devices)?,
        Some(nodes) => devices::attach_all(&root, &plan.devices, &nodes)?,
    }
    devices::link_all(&root, &plan.links)?;
    if plan.process.terminal {
        let pair = terminal::open(&root)?;
        terminal::mount_console(&root, plan.mounts.iter(), &pair)?;
        terminal::take(pair, report.as_fd())?;
    }
    if Guard::SysctlByHost.stands() {
        sysctl::write_all(host.proc(), &plan.sysctls)?;
    } else {
        let proc = root.open_path("/proc").at(Stage::Sysctl, || "open /proc".to_owned())?;
        sysctl::write_all(&Root::from_fd(proc), &plan.sysctls)?;
    }
    masks::mask(&root, &host, &plan.masked_paths)?;
    masks::make_readonly(&root, &plan.readonly_paths)?;
    make_cwd(&root, &plan.process.cwd)?;
    process::open_null_stdin(&root)?;
    if plan.readonly_rootfs {
        mount::set_attributes(root.as_fd(), mount::RDONLY, 0, false)
            .at(Stage::Rootfs, || "make the root file system read-only".to_owned())?;
    }
    mount::pivot(root.as_fd()).at(Stage::Rootfs, || "pivot_root".to_owned())?;
    spread_root(&root, plan.root_propagation)?;
    if Guard::HostClosed.stands() {
        drop((root, host));
    } else {
        std::mem::forget((root, host));
    }
    process::execute(&plan.process, report.as_fd()).map(|never| match never {})
}

/// Makes the working directory where there is none.
pub(crate) fn make_cwd(root: &Root, cwd: &str) -> Result<(), Failure> {
    if !Guard::CwdByHandle.stands() {
        return Ok(());
    }
    match root.mkdir_all(cwd, Mode::from_raw_mode(0o755)) {
        // Where only the user may look, nothing can be made, and he enters it later.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        other => other.map(drop).at(Stage::Cwd, || format!("make the working directory {cwd:?}")),
    }
}

/// Reads and checks a plan.
pub(crate) fn read_plan<T: codec::Frame>(plan: &OwnedFd) -> Result<T, Failure> {
    let bytes = memfd::read(plan.as_fd(), MAX_PLAN).at(Stage::Protocol, || "read the plan".to_owned())?;
    codec::decode(&bytes).map_err(|error| refused(Stage::Protocol, format!("the plan: {error}")))
}

/// After the change of roots: pivot_root(2) takes no shared mount.
pub(crate) fn spread_root(root: &Root, propagation: u64) -> Result<(), Failure> {
    // Of the root mount alone: mounts below have what they were given.
    let propagation = propagation & !mount::RECURSIVE;
    if propagation == 0 {
        return Ok(());
    }
    mount::set_propagation(root.as_fd(), propagation).at(Stage::Rootfs, || "set the root's propagation".to_owned())
}
