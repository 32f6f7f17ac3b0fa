//! The child's side of one more process in a container.

use std::os::fd::{AsFd, OwnedFd};

use berth_guard::Guard;
use berth_plan::container::Exec;
use berth_plan::message::{Failure, Stage};
use berth_sys::credentials;
use berth_sys::namespace::{self, Namespaces};
use berth_sys::path::Root;

use crate::failure::At;
use crate::host::{self, Host};
use crate::{container, launch, process, terminal, userns};

/// Runs in the fork, born in the container's PID namespace already: see [`crate::launch`] for the descriptors.
pub(crate) fn child(descriptors: Vec<OwnedFd>) -> i32 {
    let mut descriptors = descriptors.into_iter();
    let (Some(report), Some(plan), Some(target)) = (descriptors.next(), descriptors.next(), descriptors.next()) else {
        return 1;
    };
    match join(&report, plan, target, descriptors.collect()) {
        Err(failure) => launch::tell_failure(&report, failure),
        Ok(never) => match never {},
    }
}

fn join(
    report: &OwnedFd,
    memory: OwnedFd,
    target: OwnedFd,
    cgroups: Vec<OwnedFd>,
) -> Result<std::convert::Infallible, Failure> {
    credentials::set_dumpable(false).at(Stage::Fork, || "hide from ptrace".to_owned())?;
    let plan: Exec = container::read_plan(&memory)?;
    drop(memory);
    // The session's number is the process's: signals for all of an exec find its members by it.
    container::lead_session(true)?;
    host::join_cgroups(cgroups)?;
    // The last look at the host's procfs: afterwards /proc is the container's.
    let host = Host::open()?;
    host.set_oom_score(plan.process.oom_score_adj.unwrap_or(0))?;
    if Guard::HostClosed.stands() {
        drop(host);
    } else {
        std::mem::forget(host);
    }
    if let Some(ids) = plan.user {
        userns::give_streams(plan.process.uid, ids)?;
    }
    enter(target, plan.user.is_some(), false)?;
    if plan.process.terminal {
        take_terminal(report)?;
    }
    process::execute(&plan.process, report.as_fd())
}

/// Enters the namespaces of a container's process.
pub(crate) fn enter(target: OwnedFd, user: bool, time: bool) -> Result<(), Failure> {
    let all = Namespaces::MOUNT
        .and_if(user, Namespaces::USER)
        .and_if(time, Namespaces::TIME)
        .and(Namespaces::CGROUP)
        .and(Namespaces::IPC)
        .and(Namespaces::UTS)
        .and(Namespaces::NET);
    namespace::enter(target.as_fd(), all).at(Stage::Namespace, || "enter the container's namespaces".to_owned())?;
    drop(target);
    if !user {
        return Ok(());
    }
    // Else what it makes, as the terminal's peer, would belong to nobody inside.
    credentials::become_user(0, 0, &[]).at(Stage::User, || "become user 0 of the user namespace".to_owned())
}

/// Makes a terminal in the container that was entered: the mount namespace brought its root along.
pub(crate) fn take_terminal(report: &OwnedFd) -> Result<(), Failure> {
    let root = Root::open("/").at(Stage::Device, || "open the container's root".to_owned())?;
    terminal::take(terminal::open(&root)?, report.as_fd())
}
