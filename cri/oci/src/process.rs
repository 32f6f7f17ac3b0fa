//! The last steps: who the process is, what it may do, and the program itself.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use berth_guard::Guard;
use berth_plan::container::{Capabilities, Process};
use berth_plan::message::{Failure, Stage};
use berth_sys::path::{self, Root};
use berth_sys::{Mode, OFlags, caps, credentials, fd, process as sys, rlimit, seccomp, terminal};

use crate::failure::{At, describe, refused};
use crate::{apparmor, launch, lookup};

/// A new file's mode where the plan says nothing.
const UMASK: u32 = 0o022;

const EACCES: i32 = 13;

/// Becomes the plan's process. Runs in the container's root; returns only what went wrong.
pub(crate) fn execute(process: &Process, report: BorrowedFd<'_>) -> Result<Infallible, Failure> {
    let prepared = prepare(process)?;
    // What is left open is close-on-exec already; this is for what nobody thought of.
    fd::cloexec_all().at(Stage::Execve, || "close descriptors".to_owned())?;
    // A profile may forbid any of these calls to the program, so all of ours but execve come first.
    launch::tell_ready(report);
    restrict(process, prepared.capabilities, install)?;
    Err(prepared.execute())
}

/// A process on its last steps.
pub(crate) struct Prepared {
    program: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    pub(crate) capabilities: Capabilities,
}

impl Prepared {
    /// execve(2): returns only what went wrong.
    pub(crate) fn execute(&self) -> Failure {
        let error = sys::execute(&self.program, &self.arguments, &self.environment);
        let message = format!("exec {}: {}", self.program.to_string_lossy(), describe(&error));
        Failure { stage: Stage::Execve, errno: error.raw_os_error().unwrap_or(0), message }
    }
}

/// Everything that can go wrong while the process still may do what it likes: who it is, and which program it will be.
pub(crate) fn prepare(process: &Process) -> Result<Prepared, Failure> {
    let name = process.args.first().ok_or_else(|| refused(Stage::Execve, "no command was given"))?;
    let arguments = texts(&process.args, "an argument")?;
    let environment = texts(&process.env, "an environment variable")?;

    // A file system may let only the user in (NFS with root_squash, FUSE): then he tries below.
    let is_there = match enter_cwd(&process.cwd) {
        Err(failure) if failure.errno == EACCES => false,
        other => other.map(|()| true)?,
    };
    for limit in &process.rlimits {
        let name = rlimit::name(limit.resource);
        rlimit::set(limit.resource, limit.soft, limit.hard)
            .at(Stage::Rlimit, || format!("set {name} to {}:{}", limit.soft, limit.hard))?;
    }
    give_streams(process.uid)?;
    credentials::set_umask(process.umask.unwrap_or(UMASK));

    let capabilities =
        available(process.capabilities).at(Stage::Capabilities, || "read the capabilities".to_owned())?;
    caps::limit_bounding(capabilities.bounding).at(Stage::Capabilities, || "limit the bounding set".to_owned())?;
    caps::keep_over_setuid(true).at(Stage::Capabilities, || "keep the capabilities".to_owned())?;
    let mut groups = process.groups.clone();
    if !Guard::ExactGroups.stands() {
        groups.push(0);
    }
    credentials::become_user(process.uid, process.gid, &groups)
        .at(Stage::User, || format!("become user {}:{}", process.uid, process.gid))?;
    if !is_there {
        enter_cwd(&process.cwd)?;
    }
    let program = lookup::program(name, &process.env)?;
    apparmor::on_execute(&process.apparmor)?;
    Ok(Prepared { program, arguments, environment, capabilities })
}

fn install(filter: &[u8]) -> Result<(), Failure> {
    seccomp::install(filter).at(Stage::Seccomp, || "install the seccomp filter".to_owned())
}

fn texts(texts: &[String], what: &str) -> Result<Vec<CString>, Failure> {
    let convert = |text: &String| {
        CString::new(text.as_str()).map_err(|_| refused(Stage::Execve, format!("{what} has a zero byte")))
    };
    texts.iter().map(convert).collect()
}

/// Through a handle below the root and without magic links: `/proc/self/fd/N` leads nowhere (CVE-2024-21626).
fn enter_cwd(cwd: &str) -> Result<(), Failure> {
    let act = || format!("change to the working directory {cwd:?}");
    if Guard::CwdByHandle.stands() {
        let folder = Root::open("/").and_then(|root| root.open_path(cwd)).at(Stage::Cwd, act)?;
        sys::change_folder(folder.as_fd()).at(Stage::Cwd, act)?;
    } else {
        std::env::set_current_dir(cwd).at(Stage::Cwd, act)?;
    }
    if !Guard::CwdInside.stands() || sys::is_inside_root().at(Stage::Cwd, act)? {
        Ok(())
    } else {
        Err(refused(Stage::Cwd, format!("the working directory {cwd:?} is outside of the container's root")))
    }
}

/// Pipes and the terminal belong to the user, so that `/dev/stdout` can be opened.
pub(crate) fn give_streams(uid: u32) -> Result<(), Failure> {
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    for stream in [input.as_fd(), output.as_fd(), error.as_fd()] {
        let act = || "give a standard descriptor to the user".to_owned();
        let facts = path::facts(stream).at(Stage::User, act)?;
        let ours = facts.is_fifo() || terminal::is_peer(stream).at(Stage::User, act)?;
        if ours && facts.uid != uid {
            match fd::give(stream, uid, facts.gid) {
                // Streams of somebody outside of the user namespace, or on a file system that can't: as they are, then.
                Err(error) if lenient(&error) => {}
                other => other.at(Stage::User, act)?,
            }
        }
    }
    Ok(())
}

fn lenient(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem};
    matches!(error.kind(), InvalidInput | PermissionDenied | ReadOnlyFilesystem)
}

/// The wanted sets less what this process does not have itself: nobody can give what he lacks, and "all" means all ours.
fn available(wanted: Capabilities) -> io::Result<Capabilities> {
    let (our_bounding, our_permitted) = (caps::bounding(), caps::permitted()?);
    let bounding = wanted.bounding & our_bounding;
    let permitted = wanted.permitted & our_permitted & our_bounding;
    let inheritable = wanted.inheritable & our_permitted;
    Ok(Capabilities {
        bounding,
        permitted,
        effective: wanted.effective & permitted,
        inheritable,
        ambient: wanted.ambient & permitted & inheritable,
    })
}

/// Capabilities, no_new_privileges and the filter. The filter comes as late as it can; without no_new_privileges only
/// CAP_SYS_ADMIN can install it, so there it must come before the capabilities go.
pub(crate) fn restrict(
    process: &Process,
    capabilities: Capabilities,
    install: impl FnOnce(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let Capabilities { permitted, effective, inheritable, ambient, .. } = capabilities;
    let filter = process.seccomp.as_slice();
    let act = || "set the capabilities".to_owned();
    let mut install = (!filter.is_empty()).then_some(install);
    if !process.no_new_privileges
        && let Some(install) = install.take()
    {
        // The change of user has emptied the effective set.
        let ours = caps::permitted().at(Stage::Capabilities, act)?;
        caps::set(ours, ours, 0).at(Stage::Capabilities, act)?;
        install(filter)?;
    }
    caps::set(effective, permitted, inheritable).at(Stage::Capabilities, act)?;
    caps::set_ambient(ambient).at(Stage::Capabilities, || "set the ambient capabilities".to_owned())?;
    if process.no_new_privileges {
        credentials::set_no_new_privileges().at(Stage::Capabilities, || "set no_new_privileges".to_owned())?;
        if let Some(install) = install.take() {
            install(filter)?;
        }
    }
    Ok(())
}

/// Where standard input is the null device, it is replaced by the container's own, if it has one: the host's would be seen
/// as a file from nowhere.
pub(crate) fn open_null_stdin(root: &Root) -> Result<(), Failure> {
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    let is_null = |fd: BorrowedFd<'_>| path::facts(fd).is_ok_and(|facts| facts.is_character_device(1, 3));
    let [input, output, error] = [input.as_fd(), output.as_fd(), error.as_fd()];
    if ![input, output, error].into_iter().any(is_null) {
        return Ok(());
    }
    let Ok(null) = root.open_file("/dev/null", OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty()) else {
        return Ok(());
    };
    if !is_null(null.as_fd()) {
        return Ok(());
    }
    fd::set_nonblocking(null.as_fd(), false).at(Stage::Paths, || "open /dev/null".to_owned())?;
    let pick = |fd| if is_null(fd) { null.as_fd() } else { fd };
    fd::set_standard([pick(input), pick(output), pick(error)])
        .at(Stage::Paths, || "set the standard descriptors".to_owned())
}
