//! The child's side of a container's first process.

use std::os::fd::{AsFd, OwnedFd};

use berth_plan::container::Container;
use berth_plan::message::{Failure, Stage};
use berth_plan::{MAX_PLAN, codec};
use berth_sys::namespace::{self, Namespaces};
use berth_sys::path::Root;
use berth_sys::{Mode, credentials, memfd, mount, process as sys};

use crate::failure::{At, refused};
use crate::host::{self, Host};
use crate::{devices, launch, masks, mounts, process, rootfs, sysctl, terminal};

/// Runs in the fork: see [`crate::launch`] for the order of the descriptors.
pub(crate) fn child(descriptors: Vec<OwnedFd>) -> i32 {
    let mut descriptors = descriptors.into_iter();
    let (Some(report), Some(plan)) = (descriptors.next(), descriptors.next()) else { return 1 };
    match become_container(&report, plan, descriptors.collect()) {
        Err(failure) => launch::tell_failure(&report, failure),
        Ok(never) => match never {},
    }
}

fn become_container(
    report: &OwnedFd,
    memory: OwnedFd,
    cgroups: Vec<OwnedFd>,
) -> Result<std::convert::Infallible, Failure> {
    // Nobody inside may look into this process while it still is more than the container (CVE-2016-9962).
    credentials::set_dumpable(false).at(Stage::Fork, || "hide from ptrace".to_owned())?;
    let plan: Container = read_plan(&memory)?;
    drop(memory);
    sys::new_session().at(Stage::Fork, || "make a session".to_owned())?;
    // Keys of the host's session are none of the container's. Quotas and outer sandboxes may forbid a keyring; a container
    // without one of its own is what other runtimes then start, too.
    let _ = credentials::new_session_keyring();

    host::join_cgroups(cgroups)?;
    if plan.namespaces.cgroup {
        namespace::unshare(Namespaces::CGROUP).at(Stage::Namespace, || "make a cgroup namespace".to_owned())?;
    }
    if let Some(hostname) = plan.hostname.as_ref().filter(|_| plan.namespaces.uts) {
        namespace::set_hostname(hostname).at(Stage::Namespace, || format!("set the host name {hostname:?}"))?;
    }

    let host = Host::open()?;
    host.set_oom_score(plan.process.oom_score_adj.unwrap_or(0))?;
    // Modes in the plan are meant as they are.
    credentials::set_umask(0);
    // Copies of bind sources keep the propagation that the host's mounts have, so they are taken first; from then on
    // nothing that is mounted here reaches the host.
    let sources = mounts::open_sources(&plan.mounts)?;
    mount::set_propagation_of("/", mount::SLAVE | mount::RECURSIVE)
        .at(Stage::Mount, || "detach from the host's mounts".to_owned())?;

    let root = rootfs::mount(&plan.rootfs)?;
    mounts::mount_all(&root, sources)?;
    devices::make_all(&root, &plan.devices)?;
    devices::link_all(&root, &plan.links)?;
    if plan.process.terminal {
        let pair = terminal::open(&root)?;
        terminal::mount_console(&root, &plan.mounts, &pair)?;
        terminal::take(pair, report.as_fd())?;
    }
    sysctl::write_all(host.proc(), &plan.sysctls)?;
    masks::mask(&root, &host, &plan.masked_paths)?;
    masks::make_readonly(&root, &plan.readonly_paths)?;
    let cwd = &plan.process.cwd;
    root.mkdir_all(cwd, Mode::from_raw_mode(0o755)).at(Stage::Cwd, || format!("make the working directory {cwd:?}"))?;
    process::open_null_stdin(&root)?;
    finish_root(&root, &plan)?;

    mount::pivot(root.as_fd()).at(Stage::Rootfs, || "pivot_root".to_owned())?;
    drop((root, host));
    process::execute(&plan.process, report.as_fd())
}

/// Reads and checks a plan.
pub(crate) fn read_plan<T: codec::Frame>(plan: &OwnedFd) -> Result<T, Failure> {
    let bytes = memfd::read(plan.as_fd(), MAX_PLAN).at(Stage::Protocol, || "read the plan".to_owned())?;
    codec::decode(&bytes).map_err(|error| refused(Stage::Protocol, format!("the plan: {error}")))
}

fn finish_root(root: &Root, plan: &Container) -> Result<(), Failure> {
    if plan.readonly_rootfs {
        mount::set_attributes(root.as_fd(), mount::RDONLY, 0, false)
            .at(Stage::Rootfs, || "make the root file system read-only".to_owned())?;
    }
    // Of the root mount alone: mounts below have what they were given.
    let propagation = plan.root_propagation & !mount::RECURSIVE;
    if propagation != 0 {
        mount::set_propagation(root.as_fd(), propagation)
            .at(Stage::Rootfs, || "set the root's propagation".to_owned())?;
    }
    Ok(())
}
