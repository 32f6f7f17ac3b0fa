//! What a pod has of its own beyond network, IPC and names: a user namespace, and a PID namespace with a process 1.
//!
//! One fork serves both. It is born into the new namespaces, so that those belong to the user namespace; where the
//! containers share a PID namespace it stays as its process 1, else it leaves once the namespaces are held by others.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_plan::container::IdRange;
use berth_plan::message::{Failure, Stage};
use berth_sys::fork::{self, Birth, Child};
use berth_sys::mount::{self, FsContext};
use berth_sys::namespace::{self, Namespaces};
use berth_sys::{Mode, OFlags, caps, credentials, fd, process, seccomp, signal, userns};

use crate::answer::{failed, refused};
use crate::sandbox::Wanted;
use crate::shim::Shim;

/// Where the number of process 1 is written.
const PID_FILE: &str = "init.pid";

/// What the fork hears once its user namespace has ids, or once it has none.
const IN_USER_NAMESPACE: u8 = 1;
const GO: u8 = 2;

#[derive(Debug, Default)]
pub(crate) struct Pod {
    /// The user namespace, where it is not the node's.
    pub(crate) user: Option<OwnedFd>,
    init: Option<Init>,
}

/// Process 1 of the pod's PID namespace.
#[derive(Debug)]
struct Init {
    child: Child,
    /// It lives as long as this end of its pipe is held: not longer than the shim, whatever ends it.
    _life: OwnedFd,
}

impl Pod {
    pub(crate) fn is_init(&self, pid: i32) -> bool {
        self.init.as_ref().is_some_and(|init| init.child.pid == pid)
    }

    /// What has the PID namespace that the containers share.
    pub(crate) fn pid_namespace(&self) -> Option<BorrowedFd<'_>> {
        self.init.as_ref().map(|init| init.child.pidfd.as_fd())
    }

    /// Ends process 1, and with it all that is left in its namespace.
    pub(crate) fn end(&mut self) {
        if let Some(init) = self.init.take() {
            let _ = init.child.pidfd.kill();
            let _ = init.child.pidfd.wait();
        }
    }
}

impl Shim {
    /// Makes the pod's user and PID namespaces, and enters those that it makes inside the former.
    pub(crate) fn make_pod(&mut self, wanted: &Wanted) -> Result<(), Failure> {
        let inside = Namespaces::NONE
            .and_if(wanted.new_network, Namespaces::NET)
            .and_if(wanted.new_ipc, Namespaces::IPC)
            .and_if(wanted.new_uts, Namespaces::UTS);
        let new = Namespaces::NONE
            .and_if(wanted.user.is_some(), Namespaces::USER.and(inside))
            .and_if(wanted.shared_pid, Namespaces::PID.and(Namespaces::MOUNT));
        let (reader, writer) = fd::pipe().map_err(failed(Stage::Namespace, "make a pipe"))?;
        let null = self.null.as_fd();
        let descriptors = [reader.as_fd()];
        let birth =
            Birth { namespaces: new, stdio: Some([null, null, null]), descriptors: &descriptors, ..Birth::default() };
        let child = fork::spawn(&birth, if wanted.shared_pid { init } else { hold })
            .map_err(failed(Stage::Namespace, "make the pod's namespaces"))?;
        let made = self.adopt(&child, &writer, wanted, inside);
        if made.is_err() || !wanted.shared_pid {
            drop(writer);
            let _ = child.pidfd.kill();
            let _ = child.pidfd.wait();
            return made;
        }
        let pid = child.pid.to_string();
        self.pod.init = Some(Init { child, _life: writer });
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let written = self
            .open_in_folder(PID_FILE, flags, Mode::from_raw_mode(0o600))
            .and_then(|file| fs::File::from(file).write_all(pid.as_bytes()));
        written.map_err(failed(Stage::Namespace, "write init.pid"))
    }

    fn adopt(&mut self, child: &Child, writer: &OwnedFd, wanted: &Wanted, inside: Namespaces) -> Result<(), Failure> {
        if let Some(IdRange { host, length }) = wanted.user {
            userns::set_ids(child.pid, host, length)
                .map_err(failed(Stage::Namespace, "give the pod's user namespace its ids"))?;
            let user = fd::open(format!("/proc/{}/ns/user", child.pid), OFlags::RDONLY, Mode::empty());
            self.pod.user = Some(user.map_err(failed(Stage::Namespace, "open the pod's user namespace"))?);
            if !inside.is_none() {
                namespace::enter_of(&child.pidfd, inside)
                    .map_err(failed(Stage::Namespace, "enter the pod's namespaces"))?;
            }
        }
        let word = if wanted.user.is_some() { IN_USER_NAMESPACE } else { GO };
        let sent = fd::write(writer.as_fd(), &[word]);
        sent.map(drop).map_err(failed(Stage::Namespace, "start the pod's process 1"))
    }

    /// Process 1 has ended although nobody asked, and all containers in its namespace with it: a sandbox in which nothing
    /// can start any more is none.
    pub(crate) fn init_ended(&mut self) -> io::Result<()> {
        self.pod.init = None;
        Err(io::Error::other("the pod's process 1 has ended"))
    }
}

/// Keeps the namespaces until the shim is in them.
#[expect(clippy::needless_pass_by_value, reason = "what a fork runs owns its descriptors")]
fn hold(descriptors: Vec<OwnedFd>) -> i32 {
    let _ = descriptors.first().map(|life| userns::wait_for_end(life.as_fd()));
    0
}

/// Process 1: it reaps what is orphaned in its namespace, and nothing else. Whoever may look into it from a container
/// finds an empty folder as its root, no capability, no descriptor that leads anywhere, and a process that can read that
/// one pipe and leave: a tracer who makes it call anything else ends the pod.
#[expect(clippy::needless_pass_by_value, reason = "what a fork runs owns its descriptors")]
fn init(descriptors: Vec<OwnedFd>) -> i32 {
    let Some(life) = descriptors.first() else { return 1 };
    let mut word = [0];
    if !fd::read(life.as_fd(), &mut word).is_ok_and(|read| read == 1) {
        return 1;
    }
    // Closing what that has opened would be one call too many afterwards.
    match confine(word == [IN_USER_NAMESPACE]).and_then(|()| seccomp::be_strict()) {
        Err(error) => error.raw_os_error().unwrap_or(1),
        Ok(()) => {
            let _ = userns::wait_for_end(life.as_fd());
            seccomp::leave(0)
        }
    }
}

fn confine(in_user_namespace: bool) -> io::Result<()> {
    credentials::set_dumpable(false)?;
    process::new_session()?;
    // Both may be forbidden: then it keeps what the shim has.
    let _ = credentials::new_session_keyring();
    let _ = fs::write("/proc/self/oom_score_adj", "0");
    process::set_name(c"berth-init")?;
    // Children of a process that ignores this signal leave no zombies.
    signal::ignore(signal::SIGCHLD)?;
    if in_user_namespace {
        credentials::become_user(0, 0, &[])?;
    }
    mount::set_propagation_of("/", mount::SLAVE | mount::RECURSIVE)?;
    let context = FsContext::open("tmpfs")?;
    context.set_string("nr_inodes", "1")?;
    context.set_string("size", "4096")?;
    let empty = context.mount(mount::RDONLY | mount::NOSUID | mount::NODEV | mount::NOEXEC)?;
    empty.attach(fd::open("/proc", OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?)?;
    mount::pivot(empty.as_fd())?;
    caps::limit_bounding(0)?;
    caps::set(0, 0, 0)?;
    credentials::set_no_new_privileges()
}

/// As in [`berth_plan::message::Request::Sandbox`]: what needs [`Shim::make_pod`].
pub(crate) fn needed(wanted: &Wanted) -> Result<bool, Failure> {
    if wanted.new_network && wanted.user.is_none() {
        return Err(refused(Stage::Protocol, "a network namespace is made here only inside a user namespace"));
    }
    Ok(wanted.user.is_some() || wanted.shared_pid)
}
