//! From a started program to a shim in the background.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use berth_guard::Guard;
use berth_sys::fork::{self, Ready};
use berth_sys::mount::{self, Tree};
use berth_sys::{Mode, OFlags, credentials, fd, path, process, seqpacket, signal};

use crate::records;
use crate::shim::Shim;

/// What the shim would like to be: never the process that the kernel kills when memory is short.
const OOM_SCORE: &str = "-998";
const SOCKET: &str = "shim.sock";
const PID_FILE: &str = "shim.pid";

/// The command line.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// The sandbox's folder.
    pub(crate) dir: PathBuf,
    /// `tasks` files of the shim's cgroup, one of each v1 hierarchy.
    pub(crate) tasks: Vec<PathBuf>,
    /// The folder of the shim's cgroup v2.
    pub(crate) cgroup: Option<PathBuf>,
}

/// Runs the shim of a folder: the caller's process leaves once the socket is there; a copy of it in the background returns
/// from here when it was asked to leave.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    fd::close_inherited().map_err(at("close inherited descriptors"))?;
    execute_readonly().map_err(at("execute a read-only view of itself"))?;
    signal::reset_all();
    // Whoever started it may be gone before it hears that the shim is up.
    for number in [signal::SIGTERM, signal::SIGINT, signal::SIGHUP, signal::SIGPIPE] {
        signal::ignore(number)?;
    }
    // Containers must not look into it, and their forks inherit this (CVE-2016-9962).
    credentials::set_dumpable(false)?;
    process::set_name(c"berth-shim")?;
    // Names below are relative, as a socket's path may have 107 bytes only.
    std::env::set_current_dir(&options.dir).map_err(at("change to its folder"))?;
    records::make_folder().map_err(at("make the folder for exit records"))?;

    let cgroup = options.cgroup.as_ref().map(|path| fd::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()));
    let cgroup = cgroup.transpose().map_err(at("open its cgroup"))?;
    let ready = fork::into_background(cgroup.as_ref().map(AsFd::as_fd)).map_err(at("go into the background"))?;
    drop(cgroup);
    // Its own way in, while it has one thread, is the one that need not wait for the kernel's readers.
    for path in &options.tasks {
        fs::write(path, "0").map_err(at("join its cgroup"))?;
    }
    serve(prepare()?, ready)
}

/// The steps that make a background process a shim; the socket comes last.
fn prepare() -> io::Result<Shim> {
    process::new_session()?;
    // What it forks inherits it otherwise, and with it the keys of whoever started the runtime. It may be forbidden.
    let _ = credentials::new_session_keyring();
    process::become_subreaper()?;
    // Refused without CAP_SYS_RESOURCE: then it stays what the runtime gave us.
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    records::write_file(PID_FILE, std::process::id().to_string().as_bytes()).map_err(at("write shim.pid"))?;
    let folder = fd::open(".", OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    let listener = listen()?;
    std::env::set_current_dir("/")?;
    Shim::new(folder, listener)
}

/// Listens under another name first: once `shim.sock` exists, it can be connected to.
fn listen() -> io::Result<OwnedFd> {
    const NEW: &str = ".shim.new";
    match fs::remove_file(NEW) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = seqpacket::listen(Path::new(NEW)).map_err(at("listen"))?;
    fd::set_nonblocking(listener.as_fd(), true)?;
    fs::rename(NEW, SOCKET)?;
    Ok(listener)
}

fn serve(mut shim: Shim, ready: Ready) -> io::Result<()> {
    let null = fd::open("/dev/null", OFlags::RDWR, Mode::empty())?;
    let log =
        shim.open_in_folder("shim.log", OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND, Mode::from_raw_mode(0o600))?;
    fd::set_standard([null.as_fd(), null.as_fd(), log.as_fd()])?;
    drop((null, log));
    // The runtime that started us may be gone; that is no reason to leave.
    let _ = ready.tell();
    shim.run()?;
    for name in [SOCKET, PID_FILE] {
        let _ = shim.remove_in_folder(name);
    }
    shim.say_goodbye();
    Ok(())
}

/// Executes itself again from a detached read-only mount of its own file, unless that has happened.
///
/// `/proc/PID/exe` of this process, and of each fork that is about to become a container, leads to the program's file. On
/// a read-only mount nobody can write to it by that way, whatever he may do (CVE-2019-5736), and the mount is seen nowhere.
fn execute_readonly() -> io::Result<()> {
    let exe = fd::open("/proc/self/exe", OFlags::PATH, Mode::empty())?;
    if path::is_readonly(exe.as_fd())? || !Guard::ReadonlySelf.stands() {
        return Ok(());
    }
    let tree = Tree::copy_path("/proc/self/exe", false)?;
    tree.set_attributes(mount::RDONLY, 0, false)?;
    let text = |text: std::ffi::OsString| {
        CString::new(text.into_vec()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
    };
    let arguments = std::env::args_os().map(text).collect::<io::Result<Vec<_>>>()?;
    let environment = berth_guard::environment().map(|(name, value)| text(format!("{name}={value}").into()));
    let environment = environment.into_iter().collect::<io::Result<Vec<_>>>()?;
    Err(process::execute_handle(tree.as_fd(), &arguments, &environment))
}

fn at(act: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{act}: {error}"))
}
