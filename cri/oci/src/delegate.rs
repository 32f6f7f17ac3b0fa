//! Containers that another OCI runtime makes: its program is run as a child of the shim's fork, which mounts the root file
//! system for it and leaves when the container runs.
//!
//! The fork has a mount namespace of its own, so the runtime sees the root file system, its container keeps it, and
//! nothing of it is on the host at any moment. And the fork is a subreaper: what the runtime leaves behind becomes its
//! child, and the shim's when it leaves itself. So the process's end waits, unreaped, until the shim knows its number.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use berth_plan::container::{Container, Delegate, Exec, MountSource};
use berth_plan::message::{Failure, Stage};
use berth_sys::mount::{self, FsContext, Tree};
use berth_sys::namespace::{self, Namespaces};
use berth_sys::path::{self, Root};
use berth_sys::pidfd::PidFd;
use berth_sys::{Mode, OFlags, fd, process, seqpacket};

use crate::failure::{At, refused};
use crate::idmaps::Layers;
use crate::{container, host, images, launch, rootfs};

/// How long one command may take, in milliseconds. What takes longer hangs.
const PATIENCE: i32 = 120_000;

/// What a runtime finds in its environment: nothing of ours is its business.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Has the delegate make a container. Returns the fork's status.
pub(crate) fn make_container(report: &OwnedFd, plan: &Container, delegate: &Delegate) -> Result<i32, Failure> {
    let images = images(plan)?;
    hide(plan, &delegate.folder)?;
    let rootfs = rootfs::detached(&plan.rootfs)?;
    let place = Path::new(&delegate.folder).join("rootfs");
    let act = || format!("attach the root file system to {}", host::quoted(&place));
    let target = fd::open(&place, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).at(Stage::Rootfs, act)?;
    rootfs.attach(&target).at(Stage::Rootfs, act)?;
    attach_images(&images, &delegate.folder)?;
    run(report, delegate)
}

/// The images of volumes, attached nowhere. Something of theirs is mounted for a moment: in a mount namespace of a thread
/// that ends, since this process's may still spread its mounts to the host.
fn images(plan: &Container) -> Result<Vec<Tree>, Failure> {
    let wanted = plan.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Image { layers, sub_path } => Some((layers, sub_path)),
        _ => None,
    });
    let wanted: Vec<_> = wanted.collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let make = || {
        namespace::unshare(Namespaces::MOUNT).at(Stage::Mount, || "make a mount namespace".to_owned())?;
        container::detach_from_host()?;
        wanted.iter().map(|(layers, sub_path)| images::tree(layers, sub_path, &mut Layers::new(None))).collect()
    };
    let made = std::thread::scope(|scope| scope.spawn(make).join());
    made.unwrap_or_else(|_| Err(refused(Stage::Mount, "putting the images of volumes together failed")))
}

/// Puts them where the configuration looks for them, each under its number, in a file system of their own.
fn attach_images(images: &[Tree], folder: &str) -> Result<(), Failure> {
    if images.is_empty() {
        return Ok(());
    }
    let place = Path::new(folder).join("images");
    let act = || format!("attach the images of volumes to {}", host::quoted(&place));
    let target = fd::open(&place, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).at(Stage::Mount, act)?;
    let folders = FsContext::open("tmpfs").and_then(|context| context.mount(0)).at(Stage::Mount, act)?;
    folders.attach(&target).at(Stage::Mount, act)?;
    let folders = Root::from_fd(folders.into());
    for (number, image) in images.iter().enumerate() {
        let name = number.to_string();
        let mode = Mode::from_raw_mode(0o755);
        // Part of an image may be a file.
        let target = match path::facts(image.as_fd()).at(Stage::Mount, act)?.is_folder() {
            true => folders.mkdir_all(&name, mode),
            false => folders.touch(&name, mode),
        };
        image.set_attributes(mount::RDONLY, 0, false).at(Stage::Mount, act)?;
        image.attach(target.at(Stage::Mount, act)?).at(Stage::Mount, act)?;
    }
    Ok(())
}

/// Runs in the fork for one more process: see [`launch`] for the order of the descriptors.
pub(crate) fn exec_child(descriptors: Vec<OwnedFd>) -> i32 {
    let mut descriptors = descriptors.into_iter();
    let (Some(report), Some(plan)) = (descriptors.next(), descriptors.next()) else { return 1 };
    let plan = container::read_plan::<Exec>(&plan);
    let ran = plan.and_then(|plan| match &plan.delegate {
        Some(delegate) => run(&report, delegate),
        None => Err(refused(Stage::Protocol, "the plan has no delegate")),
    });
    ran.unwrap_or_else(|failure| launch::tell_failure(&report, failure))
}

/// Keeps the root file system from being mounted on the host, too. A container that spreads its mounts to the host must be
/// made where mounts still spread, so only the mount that holds the bundle stops doing so then.
fn hide(plan: &Container, folder: &str) -> Result<(), Failure> {
    if plan.root_propagation & mount::SHARED == 0 {
        return container::detach_from_host();
    }
    let mut last = Ok(());
    for path in Path::new(folder).ancestors() {
        // Refused for all but the folder where something is mounted.
        last = mount::set_propagation_of(path, mount::PRIVATE);
        if last.is_ok() {
            break;
        }
    }
    last.at(Stage::Mount, || format!("detach {folder:?} from the host's mounts"))
}

fn run(report: &OwnedFd, delegate: &Delegate) -> Result<i32, Failure> {
    // Signals for all of an exec find the runtime, too.
    process::new_session().at(Stage::Fork, || "make a session".to_owned())?;
    process::become_subreaper().at(Stage::Fork, || "become a subreaper".to_owned())?;
    // Names below are relative, as a socket's path may have 107 bytes only.
    std::env::set_current_dir(&delegate.folder)
        .at(Stage::Rootfs, || format!("change to the bundle {:?}", delegate.folder))?;
    let console = Console::listen(&delegate.console)?;
    let Some((first, others)) = delegate.commands.split_first() else {
        return Err(refused(Stage::Protocol, "the delegate has no commands"));
    };
    call(first, false)?;
    let pid = read_number(Path::new(&delegate.pid_file))?;
    launch::tell_heir(report.as_fd(), pid)?;
    if let Some(console) = console {
        let master = console.take()?;
        launch::tell_terminal(report.as_fd(), master.as_fd())
            .at(Stage::Device, || "hand over the terminal".to_owned())?;
    }
    for command in others {
        call(command, true)?;
    }
    launch::tell_ready(report.as_fd());
    Ok(0)
}

fn call(command: &[String], silent: bool) -> Result<(), Failure> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(refused(Stage::Protocol, "a command of the delegate is empty"));
    };
    let act = || format!("run {program:?}");
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", PATH);
    if silent {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    }
    let mut child = command.spawn().at(Stage::Execve, act)?;
    // Our child and not reaped, so the number is its own.
    let pid = i32::try_from(child.id()).map_err(|_| refused(Stage::Fork, "a process's number is out of range"))?;
    let ended = PidFd::open(pid).and_then(|process| process.has_ended(PATIENCE)).at(Stage::Fork, act)?;
    if !ended {
        let _ = child.kill();
        let _ = child.wait();
        return Err(refused(Stage::Delegate, format!("{program:?} has not ended within {} s", PATIENCE / 1000)));
    }
    let status = child.wait().at(Stage::Fork, act)?;
    if status.success() { Ok(()) } else { Err(refused(Stage::Delegate, format!("{program:?} {}", describe(status)))) }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("failed with status {code}"),
        (None, signal) => format!("was killed by signal {}", signal.unwrap_or(0)),
    }
}

fn read_number(path: &Path) -> Result<i32, Failure> {
    let number = fs::read_to_string(path).at(Stage::Delegate, || format!("read the runtime's {}", path.display()))?;
    let number = number.trim();
    number.parse::<i32>().ok().filter(|pid| *pid > 1).ok_or_else(|| {
        let shown: String = number.chars().take(32).collect();
        refused(Stage::Delegate, format!("the runtime wrote {shown:?} as its process's number"))
    })
}

/// Where the runtime sends a terminal's master to.
struct Console {
    socket: UnixListener,
    path: PathBuf,
}

impl Console {
    fn listen(path: &str) -> Result<Option<Self>, Failure> {
        if path.is_empty() {
            return Ok(None);
        }
        let path = PathBuf::from(path);
        let listen = || {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let socket = UnixListener::bind(&path)?;
            // What the runtime has not sent by its end does not come.
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = listen().at(Stage::Device, || format!("listen at {}", path.display()))?;
        Ok(Some(Self { socket, path }))
    }

    fn take(self) -> Result<OwnedFd, Failure> {
        let received = self.socket.accept().and_then(|(connection, _)| {
            connection.set_nonblocking(true)?;
            // The name of the terminal's other side, and the descriptor.
            let (_, descriptors) = seqpacket::recv(connection.as_fd(), &mut [0; 4096])?;
            descriptors.into_iter().next().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        });
        let _ = fs::remove_file(&self.path);
        received.at(Stage::Device, || "receive the terminal from the runtime".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_checked() {
        let path = std::env::temp_dir().join(format!("berth-oci-pid-{}", std::process::id()));
        for (text, wanted) in [("4711\n", Some(4711)), ("1", None), ("-7", None), ("", None), ("x", None)] {
            fs::write(&path, text).expect("a file");
            assert_eq!(read_number(&path).ok(), wanted, "{text:?}");
        }
        fs::remove_file(&path).expect("removed");
        assert_eq!(read_number(&path).expect_err("gone").stage, Stage::Delegate);
    }

    #[test]
    fn commands_that_fail_are_named() {
        let command = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
        call(&command(&["/bin/true"]), true).expect("it succeeds");
        let failure = call(&command(&["/bin/sh", "-c", "exit 3"]), true).expect_err("it fails");
        assert_eq!((failure.stage, failure.message.as_str()), (Stage::Delegate, "\"/bin/sh\" failed with status 3"));
        let failure = call(&command(&["/bin/sh", "-c", "kill -9 $$"]), true).expect_err("it dies");
        assert_eq!(failure.message, "\"/bin/sh\" was killed by signal 9");
        let failure = call(&command(&["/no/such"]), true).expect_err("it is missing");
        assert_eq!((failure.stage, failure.errno), (Stage::Execve, 2), "{failure:?}");
    }
}
