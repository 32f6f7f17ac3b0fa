//! A container in its pod's user namespace, which takes two processes.
//!
//! Only who is outside may show files with other ids, mount overlays and make device nodes. Only who is inside makes
//! mounts and namespaces that belong to the user namespace. So the shim's fork does the first, enters the user namespace
//! and forks once more: a sibling, which the shim hears of through the report, which holds all that was prepared, and
//! which becomes the container.

use std::os::fd::{AsFd, OwnedFd};

use berth_plan::container::{Container, IdRange, PidFrom};
use berth_plan::message::{Failure, Stage};
use berth_sys::fork::{self, Side};
use berth_sys::namespace::{self, Namespaces};
use berth_sys::{credentials, fd};

use crate::container::{self, detach_from_host, lead_session, own_namespaces};
use crate::failure::{At, refused};
use crate::host::{self, Host};
use crate::idmaps::{IdMaps, Layers};
use crate::{devices, launch, mounts, process, rootfs};

const GO: u8 = 1;

/// `rest` is the user namespace, what has the PID namespace to be born into (where it is neither the shim's nor a new
/// one), and the cgroups.
pub(crate) fn become_container(
    report: &OwnedFd,
    plan: &Container,
    ids: IdRange,
    mut rest: std::vec::IntoIter<OwnedFd>,
) -> Result<i32, Failure> {
    let absent = || refused(Stage::Protocol, "a namespace to enter was not handed over");
    let user = rest.next().ok_or_else(absent)?;
    let others_pid = !plan.namespaces.pid && plan.pid_from != PidFrom::Shim;
    let pid = if others_pid { Some(rest.next().ok_or_else(absent)?) } else { None };
    host::join_cgroups(rest.collect())?;
    Host::open()?.set_oom_score(plan.process.oom_score_adj.unwrap_or(0))?;
    credentials::set_umask(0);
    give_streams(plan.process.uid, ids)?;
    let inside = fd::duplicate(&user).at(Stage::Namespace, || "keep the user namespace".to_owned())?;
    let mut maps = IdMaps::of_pod(ids, inside);
    let mut sources = mounts::open_sources(&plan.mounts, &mut maps)?;
    detach_from_host()?;
    let mut layers = Layers::new(Some(user.as_fd()));
    let tree = rootfs::mapped(&plan.rootfs, ids, &mut layers)?;
    mounts::open_images(&mut sources, &mut layers)?;
    let nodes = devices::outside(&plan.devices)?;

    if let Some(pid) = pid {
        namespace::enter(pid.as_fd(), Namespaces::PID).at(Stage::Namespace, || "enter the PID namespace".to_owned())?;
    }
    namespace::enter(user.as_fd(), Namespaces::USER)
        .at(Stage::Namespace, || "enter the pod's user namespace".to_owned())?;
    drop((maps, user));
    let (reader, writer) = fd::pipe().at(Stage::Fork, || "make a pipe".to_owned())?;
    let new = launch::namespaces(plan.namespaces);
    if let Side::Old(heir) = fork::sibling(new).at(Stage::Fork, || "fork".to_owned())? {
        launch::tell_heir(report.as_fd(), heir)?;
        // Only now, so that it can't end before the shim could know it.
        fd::write(writer.as_fd(), &[GO]).at(Stage::Fork, || "let the process go on".to_owned())?;
        return Ok(0);
    }
    drop(writer);
    let mut word = [0];
    if !fd::read(reader.as_fd(), &mut word).is_ok_and(|read| read == 1) {
        return Ok(1);
    }
    drop(reader);

    lead_session(true)?;
    own_namespaces(plan)?;
    let host = Host::open()?;
    // While it still is the host's user 0, whose paths may be closed to others.
    let root = rootfs::attach(tree, &plan.rootfs)?;
    credentials::become_user(0, 0, &[]).at(Stage::User, || "become user 0 of the user namespace".to_owned())?;
    container::finish(report, plan, host, root, sources, Some(nodes))
}

/// Pipes belong to the user, so that `/dev/stdout` can be opened; inside, nobody could give them away.
pub(crate) fn give_streams(uid: u32, ids: IdRange) -> Result<(), Failure> {
    let owner = ids.outside(uid).ok_or_else(|| {
        refused(Stage::User, format!("user {uid} is not in the pod's user namespace, which has {} users", ids.length))
    })?;
    process::give_streams(owner)
}
