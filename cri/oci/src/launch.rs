//! The launching side: forks a child and learns how far it came.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_plan::codec;
use berth_plan::container::NewNamespaces;
use berth_plan::message::{Failure, Stage};
use berth_sys::fork::{self, Birth};
use berth_sys::namespace::{self, Namespaces};
use berth_sys::pidfd::PidFd;
use berth_sys::{fd, seqpacket};

use crate::failure::{At, refused};

/// What a child is given.
#[derive(Debug)]
pub struct Handed<'a> {
    /// The plan: a sealed memory file with a [`berth_plan::container::Container`] or [`berth_plan::container::Exec`].
    pub plan: BorrowedFd<'a>,
    pub stdio: [BorrowedFd<'a>; 3],
    /// `tasks` files opened for writing (v1 and hybrid).
    pub cgroup_tasks: &'a [OwnedFd],
    /// A cgroup v2 folder to be born into.
    pub cgroup_v2: Option<BorrowedFd<'a>>,
}

/// A child on its way to the user's program.
#[derive(Debug)]
pub struct Starting {
    /// Its number; that of its heir once it has told of one (see [`Starting::refresh`]).
    pub pid: i32,
    /// Where the child's report comes: readable when there is news.
    socket: OwnedFd,
    report: Vec<u8>,
    terminal: Option<OwnedFd>,
}

/// What the child says right before execve(2); the socket's end follows when that succeeded.
pub(crate) const READY: u8 = 1;
/// What the child says before a failure's frame.
pub(crate) const FAILED: u8 = 2;
/// What the child says with its terminal's master.
pub(crate) const TERMINAL: u8 = 3;
/// What the child says, before all else, when another process goes on in its place: that one's number follows.
pub(crate) const HEIR: u8 = 4;
/// A report's largest packet, and the most that is kept of all.
pub(crate) const MAX_REPORT: usize = 8192;

/// Where a container's first process is born.
#[derive(Debug, Clone, Copy)]
pub struct Birthplace<'a> {
    /// The caller's own PID namespace.
    pub own_pid: BorrowedFd<'a>,
    /// A PID namespace, or a process in one, to be born into instead; not with a new one.
    pub pid: Option<BorrowedFd<'a>>,
    /// The pod's user namespace, where the plan has ids of one.
    pub user: Option<BorrowedFd<'a>>,
}

/// Forks a container's first process.
///
/// # Errors
/// Only what keeps the child from being born; the rest comes through [`Starting::outcome`].
pub fn container(new: NewNamespaces, place: Birthplace<'_>, handed: &Handed<'_>) -> Result<Starting, Failure> {
    if !new.mount {
        return Err(refused(Stage::Namespace, "a container needs a mount namespace of its own"));
    }
    // Also heals a failure to come back below or in `exec`, the only places that change where children are born.
    namespace::enter(place.own_pid, Namespaces::PID)
        .at(Stage::Namespace, || "return to the own PID namespace".to_owned())?;
    match (place.user, place.pid) {
        // What belongs to the user namespace is made by who has entered it.
        (Some(user), pid) => {
            let more: Vec<_> = [user].into_iter().chain(pid).collect();
            spawn(Namespaces::MOUNT, handed, &more, crate::container::child)
        }
        (None, None) => spawn(namespaces(new), handed, &[], crate::container::child),
        (None, Some(pid)) => {
            namespace::enter(pid, Namespaces::PID).at(Stage::Namespace, || "enter the PID namespace".to_owned())?;
            let starting = spawn(namespaces(new), handed, &[], crate::container::child);
            namespace::enter(place.own_pid, Namespaces::PID)
                .at(Stage::Namespace, || "return to the own PID namespace".to_owned())?;
            starting
        }
    }
}

/// Those that a process can be born into; a cgroup namespace comes later.
pub(crate) fn namespaces(new: NewNamespaces) -> Namespaces {
    Namespaces::MOUNT
        .and_if(new.pid, Namespaces::PID)
        .and_if(new.ipc, Namespaces::IPC)
        .and_if(new.uts, Namespaces::UTS)
        .and_if(new.net, Namespaces::NET)
}

/// Forks a process into the namespaces of `target`, a container's first process.
///
/// The caller itself switches the PID namespace of its children and back, so that one fork is enough and the new process
/// is its own child.
///
/// # Errors
/// As [`container`].
pub fn exec(target: &PidFd, own_pid_namespace: BorrowedFd<'_>, handed: &Handed<'_>) -> Result<Starting, Failure> {
    namespace::enter_of(target, Namespaces::PID)
        .at(Stage::Namespace, || "enter the container's PID namespace".to_owned())?;
    let starting = spawn(Namespaces::NONE, handed, &[target.as_fd()], crate::exec::child);
    namespace::enter(own_pid_namespace, Namespaces::PID)
        .at(Stage::Namespace, || "return to the own PID namespace".to_owned())?;
    starting
}

/// Forks a process that has another runtime start a process in a container of its own.
///
/// # Errors
/// As [`container`].
pub fn delegate(handed: &Handed<'_>) -> Result<Starting, Failure> {
    spawn(Namespaces::NONE, handed, &[], crate::delegate::exec_child)
}

/// The child gets: the report's socket, the plan, `more`, the cgroups.
fn spawn(
    new: Namespaces,
    handed: &Handed<'_>,
    more: &[BorrowedFd<'_>],
    body: fn(Vec<OwnedFd>) -> i32,
) -> Result<Starting, Failure> {
    let (ours, theirs) = seqpacket::pair().at(Stage::Fork, || "make a socket".to_owned())?;
    fd::set_nonblocking(ours.as_fd(), true).at(Stage::Fork, || "make a socket".to_owned())?;
    let mut descriptors = vec![theirs.as_fd(), handed.plan];
    descriptors.extend(more);
    descriptors.extend(handed.cgroup_tasks.iter().map(AsFd::as_fd));
    let birth =
        Birth { namespaces: new, cgroup: handed.cgroup_v2, stdio: Some(handed.stdio), descriptors: &descriptors };
    // What a cgroup answers to a process that is to be born into it; EAGAIN is the limit of processes.
    let stage = if handed.cgroup_v2.is_some() { Stage::Cgroup } else { Stage::Fork };
    let child = fork::spawn(&birth, body).at(stage, || "fork".to_owned())?;
    Ok(Starting { pid: child.pid, socket: ours, report: Vec::new(), terminal: None })
}

impl Starting {
    /// How it went: `None` while the child is still at work, then `Ok` when the user's program runs.
    pub fn outcome(&mut self) -> Option<Result<(), Failure>> {
        match self.read() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => Some(Err(error).at(Stage::Fork, || "read the child's report".to_owned())),
            Ok(()) => Some(judge(&self.report)),
        }
    }

    /// The master of the process's terminal, once [`Starting::outcome`] is `Ok`, where its plan has one.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Learns whether another process goes on in the child's place; what ends must be looked up afterwards.
    pub fn refresh(&mut self) {
        // An error comes again with the outcome.
        let _ = self.read();
    }

    /// Reads what there is, to the end of the report.
    fn read(&mut self) -> io::Result<()> {
        loop {
            let (bytes, descriptors) = seqpacket::recv_vec(self.socket.as_fd(), MAX_REPORT)?;
            match bytes.as_slice() {
                [] => return Ok(()),
                [TERMINAL] => self.terminal = descriptors.into_iter().next(),
                &[HEIR, a, b, c, d] => self.pid = i32::from_le_bytes([a, b, c, d]),
                said => {
                    let room = MAX_REPORT.saturating_sub(self.report.len());
                    self.report.extend_from_slice(&said[..said.len().min(room)]);
                }
            }
        }
    }
}

impl AsFd for Starting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn judge(report: &[u8]) -> Result<(), Failure> {
    match report.strip_prefix(&[READY]).unwrap_or(report) {
        [] if report == [READY] => Ok(()),
        [FAILED, frame @ ..] => {
            Err(codec::decode(frame)
                .unwrap_or_else(|error| refused(Stage::Fork, format!("the child's report: {error}"))))
        }
        _ => Err(refused(Stage::Fork, "the process was killed before it could execute the program")),
    }
}

/// The child's word that it executes the program now.
pub(crate) fn tell_ready(report: BorrowedFd<'_>) {
    // The launcher may be gone; its absence stops no container.
    let _ = seqpacket::send(report, &[READY], &[]);
}

/// The child's terminal. Without a launcher there is nobody to hold its master, so this may fail.
pub(crate) fn tell_terminal(report: BorrowedFd<'_>, master: BorrowedFd<'_>) -> io::Result<()> {
    seqpacket::send(report, &[TERMINAL], &[master])
}

/// The child's word that another process goes on in its place.
pub(crate) fn tell_heir(report: BorrowedFd<'_>, pid: i32) -> Result<(), Failure> {
    let mut word = vec![HEIR];
    word.extend(pid.to_le_bytes());
    seqpacket::send(report, &word, &[]).at(Stage::Fork, || "tell of the container's process".to_owned())
}

/// The child's last word: its status.
pub(crate) fn tell_failure(report: &OwnedFd, mut failure: Failure) -> i32 {
    let mut end = failure.message.len().min(2048);
    while !failure.message.is_char_boundary(end) {
        end -= 1;
    }
    failure.message.truncate(end);
    let mut packet = vec![FAILED];
    packet.extend(codec::encode(&failure).unwrap_or_default());
    // A filter that is in force already may forbid the one, and rarely the other.
    if seqpacket::send(report.as_fd(), &packet, &[]).is_err() {
        let _ = fd::write(report.as_fd(), &packet);
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_judged_by_their_end() {
        assert_eq!(judge(&[READY]), Ok(()));
        assert_eq!(judge(&[]).expect_err("killed").stage, Stage::Fork);
        let failure = refused(Stage::Execve, "exec: \"x\": not found");
        let mut report = vec![FAILED];
        report.extend(codec::encode(&failure).expect("it fits"));
        assert_eq!(judge(&report), Err(failure.clone()));
        report.insert(0, READY);
        assert_eq!(judge(&report), Err(failure));
        assert_eq!(judge(&[READY, FAILED, 7]).expect_err("torn").stage, Stage::Fork);
    }

    #[test]
    fn an_heir_is_learnt_of_before_the_end() {
        let (socket, theirs) = seqpacket::pair().expect("a socket");
        fd::set_nonblocking(socket.as_fd(), true).expect("nonblocking");
        let mut starting = Starting { pid: 7, socket, report: Vec::new(), terminal: None };
        starting.refresh();
        assert_eq!(starting.pid, 7);
        tell_heir(theirs.as_fd(), 257).expect("told");
        starting.refresh();
        assert_eq!(starting.pid, 257);
        assert_eq!(starting.outcome(), None);
        tell_ready(theirs.as_fd());
        assert_eq!(starting.outcome(), None);
        drop(theirs);
        assert_eq!((starting.outcome(), starting.pid), (Some(Ok(())), 257));
    }
}
