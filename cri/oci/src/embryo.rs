//! The launching side for bundles: a container's process from its birth until the user's program runs.
//!
//! The launcher is a program of one thread that ends soon. It opens what only the host's side can open (mount sources,
//! namespaces by their paths), forks, and then listens to what the child says, word by word ([`Talk`]). With a listening
//! socket in [`Handed::start`] the child says [`Word::Created`], lets the launcher go and waits for whoever connects:
//! another launcher, which speaks with it as the first one did. Nothing is left to be opened by then, and a child that has
//! died refuses the connection.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_plan::bundle::{Bundle, BundleExec, BundleMount, NamespaceKind, UserNamespace};
use berth_plan::codec;
use berth_plan::container::MountSource;
use berth_plan::message::{Failure, Stage};
use berth_sys::fork::{self, Birth};
use berth_sys::mount::{self, Tree};
use berth_sys::namespace::{self, Namespaces};
use berth_sys::pidfd::PidFd;
use berth_sys::{Mode, OFlags, fd, seqpacket, userns};

use crate::failure::{At, refused};
use crate::launch::{self, FAILED, HEIR, MAX_REPORT, READY, TERMINAL};
use crate::{mounts, process, rootfs};

/// What the child says when everything is mounted and the roots are not changed yet.
pub(crate) const HOOKS: u8 = 5;
/// What the child says with its filter's listener.
pub(crate) const SECCOMP: u8 = 6;
/// What the child says when nothing is left but to start the program.
pub(crate) const CREATED: u8 = 7;
/// The launcher's word that the child may go on.
pub(crate) const GO: u8 = 1;

/// What a child is given.
#[derive(Debug)]
pub struct Handed<'a> {
    pub stdio: [BorrowedFd<'a>; 3],
    /// `tasks` files opened for writing (v1 and hybrid).
    pub cgroup_tasks: &'a [OwnedFd],
    /// A cgroup v2 folder to be born into.
    pub cgroup_v2: Option<BorrowedFd<'a>>,
    /// Where the child listens for its start; without, it waits for this launcher's word.
    pub start: Option<BorrowedFd<'a>>,
    /// Descriptors that the program gets, from 3 up.
    pub kept: &'a [OwnedFd],
}

/// A child's word.
#[derive(Debug)]
pub enum Word {
    /// It waits for hooks to be run.
    Hooks,
    /// It waits for its filter's listener to be handed on.
    Seccomp(OwnedFd),
    /// Its terminal's master. It does not wait.
    Terminal(OwnedFd),
    /// It waits for its start.
    Created,
    /// The program runs.
    Running,
}

/// One side of a conversation with a child.
#[derive(Debug)]
pub struct Talk {
    socket: OwnedFd,
    ready: bool,
    heir: Option<i32>,
}

impl Talk {
    /// Goes on with a child that has been created, by a connection to where it listens.
    pub fn resume(socket: OwnedFd) -> Self {
        Self { socket, ready: false, heir: None }
    }

    /// The next word; waits for it.
    ///
    /// # Errors
    /// What went wrong on the child's side, or that it has died.
    pub fn hear(&mut self) -> Result<Word, Failure> {
        loop {
            let (bytes, descriptors) = seqpacket::recv_vec(self.socket.as_fd(), MAX_REPORT)
                .at(Stage::Fork, || "read the child's report".to_owned())?;
            let mut descriptors = descriptors.into_iter();
            match (bytes.as_slice(), descriptors.next()) {
                ([], _) if self.ready => return Ok(Word::Running),
                ([], _) => {
                    return Err(refused(Stage::Fork, "the process was killed before it could execute the program"));
                }
                ([READY], _) => self.ready = true,
                ([HOOKS], _) => return Ok(Word::Hooks),
                ([CREATED], _) => return Ok(Word::Created),
                ([SECCOMP], Some(listener)) => return Ok(Word::Seccomp(listener)),
                ([TERMINAL], Some(master)) => return Ok(Word::Terminal(master)),
                (&[HEIR, a, b, c, d], _) => self.heir = Some(i32::from_le_bytes([a, b, c, d])),
                ([FAILED, frame @ ..], _) => {
                    return Err(codec::decode(frame)
                        .unwrap_or_else(|error| refused(Stage::Fork, format!("the child's report: {error}"))));
                }
                _ => return Err(refused(Stage::Fork, "the child's report makes no sense")),
            }
        }
    }

    /// Lets the child go on.
    ///
    /// # Errors
    /// When it has died.
    pub fn go_on(&self) -> Result<(), Failure> {
        seqpacket::send(self.socket.as_fd(), &[GO], &[]).at(Stage::Fork, || "let the process go on".to_owned())
    }
}

/// A child on its way to the user's program.
#[derive(Debug)]
pub struct Embryo {
    pub talk: Talk,
    born: i32,
    pidfd: PidFd,
}

impl Embryo {
    /// The number of the process that goes on; known for good once it has said a word.
    pub fn pid(&self) -> i32 {
        self.talk.heir.unwrap_or(self.born)
    }

    /// The process that goes on.
    ///
    /// # Errors
    /// What pidfd_open(2) answers.
    pub fn process(&self) -> io::Result<PidFd> {
        // Our child and not reaped, so the number is its own.
        PidFd::open(self.pid())
    }

    /// Ends the child, and waits for its end.
    pub fn kill(&self) {
        for process in [PidFd::open(self.pid()).ok().as_ref(), Some(&self.pidfd)].into_iter().flatten() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Reaps the process that had an heir go on.
    fn reap_first(&self) {
        if self.talk.heir.is_some() {
            let _ = self.pidfd.wait();
        }
    }
}

/// Forks a container's first process. The child waits for nobody but where its words say so.
///
/// # Errors
/// What keeps the child from being born; what goes wrong later is said by [`Talk::hear`].
pub fn container(bundle: &Bundle, handed: &Handed<'_>) -> Result<Embryo, Failure> {
    let root = rootfs::detached(&bundle.container.rootfs)?;
    // What is mounted on the host later still arrives; nothing goes the other way.
    root.set_propagation(mount::SLAVE | mount::RECURSIVE)
        .at(Stage::Rootfs, || "detach the root file system from the host's mounts".to_owned())?;
    let trees = open_sources(&bundle.mounts)?;
    let user = match &bundle.user {
        UserNamespace::Joined(path) => Some(open_namespace(path)?),
        UserNamespace::Host => None,
        UserNamespace::New(maps) => {
            let uid = bundle.container.process.uid;
            let outside = maps.users.iter().find_map(|map| {
                let at = uid.checked_sub(map.inside).filter(|at| *at < map.length)?;
                map.outside.checked_add(at)
            });
            // Inside, nobody could give the streams away.
            let owner = outside.ok_or_else(|| {
                refused(Stage::User, format!("process.user.uid: user {uid} is not in linux.uidMappings"))
            })?;
            process::give_streams(owner)?;
            None
        }
    };
    let mut later = Vec::new();
    let mut away = Away::default();
    for join in &bundle.joins {
        let namespace = open_namespace(&join.path)?;
        let by_child = match join.kind {
            // Only from within its own cgroup.
            NamespaceKind::Cgroup => true,
            // Numbers are told from there.
            NamespaceKind::Pid => user.is_some(),
            _ => false,
        };
        if by_child {
            later.push(namespace);
        } else {
            away.go(&namespace, kind(join.kind), &join.path)?;
        }
    }
    if let Some(offsets) = &bundle.time_offsets {
        away.make_time(offsets)?;
    }
    let new = launch::namespaces(bundle.container.namespaces);
    let namespaces = match &bundle.user {
        UserNamespace::Host => new,
        UserNamespace::New(_) => new.and(Namespaces::USER),
        // What belongs to the user namespace is made by who has entered it.
        UserNamespace::Joined(_) => Namespaces::MOUNT,
    };
    let (ours, theirs) = seqpacket::pair().at(Stage::Fork, || "make a socket".to_owned())?;
    let mut descriptors: Vec<BorrowedFd<'_>> = handed.kept.iter().map(AsFd::as_fd).collect();
    descriptors.push(theirs.as_fd());
    descriptors.extend(handed.start);
    descriptors.push(root.as_fd());
    descriptors.extend(user.as_ref().map(AsFd::as_fd));
    descriptors.extend(later.iter().map(AsFd::as_fd));
    descriptors.extend(trees.iter().map(AsFd::as_fd));
    descriptors.extend(handed.cgroup_tasks.iter().map(AsFd::as_fd));
    let birth = Birth { namespaces, cgroup: handed.cgroup_v2, stdio: Some(handed.stdio), descriptors: &descriptors };
    let context = crate::bundle::Context { bundle, listens: handed.start.is_some() };
    let child = fork::spawn_with(&birth, &context, crate::bundle::child).at(Stage::Fork, || "fork".to_owned());
    away.come_back()?;
    let child = child?;
    let embryo = Embryo { talk: Talk::resume(ours), born: child.pid, pidfd: child.pidfd };
    if let UserNamespace::New(maps) = &bundle.user {
        let mapped = userns::set_maps(child.pid, &maps.users(), &maps.groups());
        let told = mapped
            .at(Stage::Namespace, || "linux.uidMappings, linux.gidMappings: map the ids".to_owned())
            .and_then(|()| embryo.talk.go_on());
        if let Err(failure) = told {
            embryo.kill();
            return Err(failure);
        }
    }
    Ok(embryo)
}

/// Forks a process into the namespaces of `target`, a container's first process.
///
/// # Errors
/// As [`container`].
pub fn exec(plan: &BundleExec, target: &PidFd, handed: &Handed<'_>) -> Result<Embryo, Failure> {
    namespace::enter_of(target, Namespaces::PID)
        .at(Stage::Namespace, || "enter the container's PID namespace".to_owned())?;
    let (ours, theirs) = seqpacket::pair().at(Stage::Fork, || "make a socket".to_owned())?;
    let mut descriptors: Vec<BorrowedFd<'_>> = handed.kept.iter().map(AsFd::as_fd).collect();
    descriptors.extend([theirs.as_fd(), target.as_fd()]);
    descriptors.extend(handed.cgroup_tasks.iter().map(AsFd::as_fd));
    let birth = Birth {
        namespaces: Namespaces::NONE,
        cgroup: handed.cgroup_v2,
        stdio: Some(handed.stdio),
        descriptors: &descriptors,
    };
    let child = fork::spawn_with(&birth, plan, crate::bundle::exec_child).at(Stage::Fork, || "fork".to_owned())?;
    Ok(Embryo { talk: Talk::resume(ours), born: child.pid, pidfd: child.pidfd })
}

impl Drop for Embryo {
    fn drop(&mut self) {
        self.reap_first();
    }
}

/// The namespaces of the launcher's own that it has left for its child's birth.
#[derive(Default)]
struct Away {
    own: Vec<(OwnedFd, Namespaces)>,
}

impl Away {
    fn go(&mut self, namespace: &OwnedFd, kind: Namespaces, path: &str) -> Result<(), Failure> {
        self.remember(kind)?;
        namespace::enter(namespace.as_fd(), kind)
            .at(Stage::Namespace, || format!("linux.namespaces: enter the namespace {path:?}"))
    }

    fn make_time(&mut self, offsets: &str) -> Result<(), Failure> {
        self.remember(Namespaces::TIME)?;
        namespace::unshare(Namespaces::TIME).at(Stage::Namespace, || "make a time namespace".to_owned())?;
        if offsets.is_empty() {
            return Ok(());
        }
        namespace::set_time_offsets(offsets).at(Stage::Namespace, || "set linux.timeOffsets".to_owned())
    }

    fn remember(&mut self, kind: Namespaces) -> Result<(), Failure> {
        let name = match kind {
            Namespaces::IPC => "ipc",
            Namespaces::NET => "net",
            Namespaces::PID => "pid",
            Namespaces::TIME => "time",
            _ => "uts",
        };
        let own = open_namespace(&format!("/proc/self/ns/{name}"))?;
        self.own.push((own, kind));
        Ok(())
    }

    fn come_back(self) -> Result<(), Failure> {
        for (own, kind) in self.own {
            namespace::enter(own.as_fd(), kind).at(Stage::Namespace, || "return to the own namespaces".to_owned())?;
        }
        Ok(())
    }
}

pub(crate) fn kind(kind: NamespaceKind) -> Namespaces {
    match kind {
        NamespaceKind::Cgroup => Namespaces::CGROUP,
        NamespaceKind::Ipc => Namespaces::IPC,
        NamespaceKind::Net => Namespaces::NET,
        NamespaceKind::Pid => Namespaces::PID,
        NamespaceKind::Time => Namespaces::TIME,
        NamespaceKind::Uts => Namespaces::UTS,
    }
}

fn open_namespace(path: &str) -> Result<OwnedFd, Failure> {
    fd::open(path, OFlags::RDONLY, Mode::empty())
        .at(Stage::Namespace, || format!("linux.namespaces: open the namespace {path:?}"))
}

/// Finished trees of all mounts that are bound, by the host's paths and in the plan's order.
fn open_sources(mounts: &[BundleMount]) -> Result<Vec<Tree>, Failure> {
    let mut trees = Vec::new();
    for bundled in mounts {
        let mount = &bundled.mount;
        let open = |path: &str, recursive| {
            Tree::copy_path(path, recursive).at(Stage::Mount, || format!("open the mount source {path:?}"))
        };
        if let MountSource::Bind { path, recursive } = &mount.source {
            let tree = open(path, *recursive)?;
            let act = || format!("mount {path:?} to {:?}", mount.destination);
            if let Some(ids) = &bundled.ids {
                let namespace = userns::make_with_maps(&ids.users(), &ids.groups())
                    .at(Stage::Mount, || format!("make a user namespace for the ids of {path:?}"))?;
                tree.set_ids(namespace.as_fd(), bundled.recursive_ids)
                    .at(Stage::Mount, || format!("show {path:?} with other ids (idmap)"))?;
            }
            mounts::finish_bound(&tree, mount)?;
            tree.set_attributes(bundled.recursive_set, bundled.recursive_clear, true).at(Stage::Mount, act)?;
            trees.push(tree);
        }
        for path in &bundled.cgroups {
            let tree = open(path, true)?;
            mounts::finish_bound(&tree, mount)?;
            trees.push(tree);
        }
    }
    Ok(trees)
}

/// How many of the child's descriptors are trees of a mount.
pub(crate) fn trees_of(bundled: &BundleMount) -> usize {
    usize::from(matches!(bundled.mount.source, MountSource::Bind { .. })) + bundled.cgroups.len()
}
