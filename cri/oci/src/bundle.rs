//! The child's side of a bundle: see [`crate::embryo`] for the launcher's.

use std::os::fd::{AsFd, OwnedFd};

use berth_plan::bundle::{Bundle, BundleExec, BundleMount, More, NamespaceKind, UserNamespace};
use berth_plan::container::{MountSource, Process, Rootfs};
use berth_plan::message::{Failure, Stage};
use berth_sys::fork::{self, Side};
use berth_sys::mount::Tree;
use berth_sys::namespace::{self, Namespaces};
use berth_sys::path::Root;
use berth_sys::{Mode, OFlags, credentials, fd, mount, seccomp, seqpacket};

use crate::embryo::{CREATED, GO, HOOKS, SECCOMP, kind, trees_of};
use crate::failure::{At, refused};
use crate::host::{self, Host};
use crate::{
    cgroups, container, copy_up, devices, exec, hooks, launch, masks, mounts, priorities, process, sysctl, terminal,
};

/// What the child finds in its copy of the launcher's memory.
pub(crate) struct Context<'a> {
    pub(crate) bundle: &'a Bundle,
    /// Whether it has a socket to listen at for its start.
    pub(crate) listens: bool,
}

/// The child's descriptors after the report, in the order of [`crate::embryo::container`].
struct Handed {
    start: Option<OwnedFd>,
    root: OwnedFd,
    user: Option<OwnedFd>,
    /// Namespaces to enter, in the order of the plan's.
    joins: Vec<(NamespaceKind, OwnedFd)>,
    trees: Vec<OwnedFd>,
    tasks: Vec<OwnedFd>,
}

impl Handed {
    fn take(context: &Context<'_>, descriptors: Vec<OwnedFd>) -> Option<(OwnedFd, Self)> {
        let bundle = context.bundle;
        let mut descriptors = descriptors.into_iter();
        keep(&mut descriptors, &bundle.more);
        let report = descriptors.next()?;
        let start = if context.listens { Some(descriptors.next()?) } else { None };
        let root = descriptors.next()?;
        let joined = matches!(bundle.user, UserNamespace::Joined(_));
        let user = if joined { Some(descriptors.next()?) } else { None };
        let mut joins = Vec::new();
        for join in &bundle.joins {
            if join.kind == NamespaceKind::Cgroup || (join.kind == NamespaceKind::Pid && joined) {
                joins.push((join.kind, descriptors.next()?));
            }
        }
        let count = bundle.mounts.iter().map(trees_of).sum();
        let trees: Vec<_> = descriptors.by_ref().take(count).collect();
        Some((report, Self { start, root, user, joins, trees, tasks: descriptors.collect() }))
    }
}

/// Runs in the fork.
pub(crate) fn child(context: &Context<'_>, descriptors: Vec<OwnedFd>) -> i32 {
    let Some((mut report, handed)) = Handed::take(context, descriptors) else { return 1 };
    match become_container(context.bundle, &mut report, handed) {
        Err(failure) => launch::tell_failure(&report, failure),
        Ok(status) => status,
    }
}

/// The program's own descriptors come first. They belong to nobody here.
fn keep(descriptors: &mut std::vec::IntoIter<OwnedFd>, more: &More) {
    for _ in 0..more.kept_descriptors {
        if let Some(kept) = descriptors.next() {
            std::mem::forget(kept);
        }
    }
}

/// Returns for what is left behind only. `report` changes to whoever starts the container.
fn become_container(bundle: &Bundle, report: &mut OwnedFd, handed: Handed) -> Result<i32, Failure> {
    // Nobody inside may look into this process while it still is more than the container (CVE-2016-9962).
    credentials::set_dumpable(false).at(Stage::Fork, || "hide from ptrace".to_owned())?;
    let plan = &bundle.container;
    let Handed { start, root, user, joins, trees, tasks } = handed;
    if matches!(bundle.user, UserNamespace::New(_)) {
        // Until the ids are mapped.
        wait_for_go(report)?;
    }
    host::join_cgroups(tasks)?;
    if let Some(user) = user
        && let Side::Old(heir) = enter_user_namespace(bundle, &user, &joins)?
    {
        launch::tell_heir(report.as_fd(), heir)?;
        return Ok(0);
    }
    container::lead_session(!bundle.more.inherits_keyring)?;
    for (kind_of, namespace) in joins.iter().filter(|(kind, _)| *kind == NamespaceKind::Cgroup) {
        namespace::enter(namespace.as_fd(), kind(*kind_of))
            .at(Stage::Namespace, || "linux.namespaces: enter the cgroup namespace".to_owned())?;
    }
    drop(joins);
    container::own_namespaces(plan)?;
    if let Some(name) = &bundle.domainname {
        namespace::set_domainname(name).at(Stage::Namespace, || format!("set the domain name {name:?}"))?;
    }
    let host = Host::open()?;
    if let Some(score) = plan.process.oom_score_adj {
        host.set_oom_score(score)?;
    }
    credentials::set_umask(0);
    container::detach_from_host()?;
    let root = attach_root(&plan.rootfs, root)?;
    let in_user_namespace = bundle.user != UserNamespace::Host;
    if in_user_namespace {
        credentials::become_user(0, 0, &[]).at(Stage::User, || "become user 0 of the user namespace".to_owned())?;
    }
    mount_all(&root, &bundle.mounts, trees, in_user_namespace)?;
    devices::make_all(&root, &plan.devices)?;
    devices::link_all(&root, &plan.links)?;
    if plan.process.terminal {
        let pair = terminal::open(&root)?;
        terminal::mount_console(&root, bundle.mounts.iter().map(|bundled| &bundled.mount), &pair)?;
        terminal::take(pair, report.as_fd())?;
    }
    if bundle.runtime_hooks {
        say(report, HOOKS)?;
        wait_for_go(report)?;
    }
    hooks::run(&bundle.create_container, "createContainer", &bundle.state.of(own_number()))?;
    sysctl::write_all(host.proc(), &plan.sysctls)?;
    masks::mask(&root, &host, &plan.masked_paths)?;
    masks::make_readonly(&root, &plan.readonly_paths)?;
    container::make_cwd(&root, &plan.process.cwd)?;
    process::open_null_stdin(&root)?;
    if plan.readonly_rootfs {
        mount::set_attributes(root.as_fd(), mount::RDONLY, 0, false)
            .at(Stage::Rootfs, || "make the root file system read-only".to_owned())?;
    }
    if bundle.no_pivot {
        mount::move_to_root(root.as_fd()).at(Stage::Rootfs, || "move the root file system to /".to_owned())?;
    } else {
        mount::pivot(root.as_fd()).at(Stage::Rootfs, || "pivot_root".to_owned())?;
    }
    container::spread_root(&root, plan.root_propagation)?;
    drop((root, host));
    priorities::apply(&bundle.more)?;
    let last = Last {
        process: &plan.process,
        more: &bundle.more,
        start,
        start_container: &|| {
            hooks::run(&bundle.start_container, "startContainer", &bundle.start_state.of(own_number()))
        },
    };
    last.execute(report)
}

/// Enters a user namespace that exists, and goes on as a process that is born inside.
fn enter_user_namespace(bundle: &Bundle, user: &OwnedFd, joins: &[(NamespaceKind, OwnedFd)]) -> Result<Side, Failure> {
    if let Some((_, pid)) = joins.iter().find(|(kind, _)| *kind == NamespaceKind::Pid) {
        namespace::enter(pid.as_fd(), Namespaces::PID)
            .at(Stage::Namespace, || "linux.namespaces: enter the PID namespace".to_owned())?;
    }
    namespace::enter(user.as_fd(), Namespaces::USER)
        .at(Stage::Namespace, || "linux.namespaces: enter the user namespace".to_owned())?;
    fork::sibling(launch::namespaces(bundle.container.namespaces)).at(Stage::Fork, || "fork".to_owned())
}

/// At its own path, where hooks look for it; a user namespace may not be able to get there, and has it at `/` then.
fn attach_root(rootfs: &Rootfs, tree: OwnedFd) -> Result<Root, Failure> {
    let Rootfs::Folder { path } = rootfs else {
        return Err(refused(Stage::Rootfs, "a bundle has its root file system in a folder"));
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let target = fd::open(path, flags, Mode::empty()).or_else(|_| fd::open("/", flags, Mode::empty()));
    let act = || format!("attach the root file system {path:?}");
    let target = target.at(Stage::Rootfs, act)?;
    mount::attach(tree.as_fd(), target.as_fd()).at(Stage::Rootfs, act)?;
    Ok(Root::from_fd(tree))
}

fn mount_all(root: &Root, mounts: &[BundleMount], trees: Vec<OwnedFd>, in_user_namespace: bool) -> Result<(), Failure> {
    let mut trees = trees.into_iter().map(Tree::from_fd);
    for bundled in mounts {
        let mount = &bundled.mount;
        let own: Vec<Tree> = trees.by_ref().take(trees_of(bundled)).collect();
        match (&mount.source, own.as_slice()) {
            (MountSource::Filesystem { kind, options }, _) if bundled.copy_up => {
                copy_up::mount(root, mount, kind, options)?;
            }
            (MountSource::Filesystem { kind, options }, _) => {
                mounts::filesystem(root, mount, kind, options, in_user_namespace)?;
            }
            (MountSource::Cgroup { hierarchies, links }, trees) => {
                cgroups::mount(root, mount, hierarchies, links, trees)?;
            }
            (MountSource::Bind { .. }, [tree]) => mounts::attach_bound(root, &mount.destination, tree)?,
            _ => return Err(refused(Stage::Mount, format!("the source of {:?} was not opened", mount.destination))),
        }
    }
    Ok(())
}

/// The last part of a process's way: until its start, and its program.
struct Last<'a> {
    process: &'a Process,
    more: &'a More,
    start: Option<OwnedFd>,
    start_container: &'a dyn Fn() -> Result<(), Failure>,
}

impl Last<'_> {
    fn execute(self, report: &mut OwnedFd) -> Result<i32, Failure> {
        let prepared = process::prepare(self.process)?;
        say(report, CREATED)?;
        match self.start {
            // The creator goes, and whoever connects is told the rest. Its being away already is no reason to stay.
            Some(start) => *report = seqpacket::accept(start.as_fd()).at(Stage::Fork, || "wait".to_owned())?,
            None => wait_for_go(report)?,
        }
        (self.start_container)()?;
        // What is left open is close-on-exec already; this is for what nobody thought of.
        fd::cloexec_all().at(Stage::Execve, || "close descriptors".to_owned())?;
        fd::keep_first(self.more.kept_descriptors).at(Stage::Execve, || "keep descriptors".to_owned())?;
        // A profile may forbid any of these calls to the program, so all of ours but execve come first.
        launch::tell_ready(report.as_fd());
        process::restrict(self.process, prepared.capabilities, |filter| install(filter, self.more, report))?;
        Err(prepared.execute())
    }
}

fn install(filter: &[u8], more: &More, report: &OwnedFd) -> Result<(), Failure> {
    let act = || "install the seccomp filter".to_owned();
    if !more.seccomp_listener {
        return seccomp::install_with(filter, more.seccomp_flags).at(Stage::Seccomp, act);
    }
    let listener = seccomp::install_listening(filter, more.seccomp_flags).at(Stage::Seccomp, act)?;
    // From here on the filter holds: one that keeps sendmsg or recvmsg for its listener stops us here.
    seqpacket::send(report.as_fd(), &[SECCOMP], &[listener.as_fd()])
        .at(Stage::Seccomp, || "hand over the seccomp listener".to_owned())?;
    wait_for_go(report)
}

/// The child's side of one more process in a container.
pub(crate) fn exec_child(plan: &BundleExec, descriptors: Vec<OwnedFd>) -> i32 {
    let mut descriptors = descriptors.into_iter();
    keep(&mut descriptors, &plan.more);
    let (Some(mut report), Some(target)) = (descriptors.next(), descriptors.next()) else { return 1 };
    match join(plan, &mut report, target, descriptors.collect()) {
        Err(failure) => launch::tell_failure(&report, failure),
        Ok(status) => status,
    }
}

fn join(plan: &BundleExec, report: &mut OwnedFd, target: OwnedFd, tasks: Vec<OwnedFd>) -> Result<i32, Failure> {
    credentials::set_dumpable(false).at(Stage::Fork, || "hide from ptrace".to_owned())?;
    container::lead_session(!plan.more.inherits_keyring)?;
    host::join_cgroups(tasks)?;
    if let Some(score) = plan.process.oom_score_adj {
        // The last look at the host's procfs: afterwards /proc is the container's.
        Host::open()?.set_oom_score(score)?;
    }
    exec::enter(target, plan.user, plan.time)?;
    if plan.process.terminal {
        exec::take_terminal(report)?;
    }
    priorities::apply(&plan.more)?;
    Last { process: &plan.process, more: &plan.more, start: None, start_container: &|| Ok(()) }.execute(report)
}

fn say(report: &OwnedFd, word: u8) -> Result<(), Failure> {
    seqpacket::send(report.as_fd(), &[word], &[]).at(Stage::Fork, || "report to the launcher".to_owned())
}

/// Waits for the launcher's word; without a launcher nobody wants this process.
fn wait_for_go(report: &OwnedFd) -> Result<(), Failure> {
    let mut word = [0; 8];
    let (length, _) =
        seqpacket::recv(report.as_fd(), &mut word).at(Stage::Fork, || "wait for the launcher".to_owned())?;
    if word[..length] == [GO] { Ok(()) } else { Err(refused(Stage::Fork, "the launcher is gone")) }
}

/// As the container sees it.
fn own_number() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(0)
}
