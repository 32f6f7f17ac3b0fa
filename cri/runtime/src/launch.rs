//! Making a container: everything that `create` and `run` have in common.

use std::env;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use berth_cgroup::{Cgroup, Host};
use berth_cri_core::bundle::{self, Compiled, Listener, Outside};
use berth_cri_core::host::{Arch, CgroupLayout};
use berth_oci::embryo::{self, Embryo, Handed, Talk, Word};
use berth_oci::hooks;
use berth_plan::container::Rootfs;
use berth_sys::{fd, seqpacket};
use berth_systemd::Systemd;
use oci_spec::runtime::Spec;
use serde_json::json;

use crate::arguments::Given;
use crate::fault::{During, Fault, Outcome};
use crate::global::Global;
use crate::procfs::Stat;
use crate::scope::{Held, Scoped};
use crate::store::{Folder, Phase, Record, START, Store};
use crate::{configuration, console, home, limits, state};

/// What is to be made.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) id: &'a str,
    pub(crate) bundle: Option<&'a str>,
    pub(crate) pid_file: Option<&'a str>,
    pub(crate) console_socket: Option<&'a str>,
    pub(crate) no_pivot: bool,
    pub(crate) no_new_keyring: bool,
    pub(crate) preserve_fds: u32,
    /// Whether the process waits for another program's word to start.
    pub(crate) waits: bool,
    /// Whether the caller stays.
    pub(crate) stays: bool,
}

impl<'a> Request<'a> {
    /// What the options say that `create` and `run` both have; the caller adds how the start is to be.
    pub(crate) fn of(given: &'a Given, id: &'a str) -> Outcome<Self> {
        Ok(Self {
            id,
            bundle: given.value("bundle"),
            pid_file: given.value("pid-file"),
            console_socket: given.value("console-socket"),
            no_pivot: given.flag("no-pivot"),
            no_new_keyring: given.flag("no-new-keyring"),
            preserve_fds: given.number("preserve-fds")?.unwrap_or(0),
            waits: false,
            stays: false,
        })
    }
}

/// A container whose process waits for its start.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) folder: Folder,
    pub(crate) record: Record,
    pub(crate) embryo: Embryo,
    pub(crate) compiled: Compiled,
    /// Its terminal's master, where nobody else has it.
    pub(crate) terminal: Option<OwnedFd>,
}

pub(crate) fn make(global: &Global, request: &Request<'_>) -> Outcome<Made> {
    let store = Store::new(&global.root);
    store.check_free(request.id)?;
    let bundle = configuration::bundle(request.bundle)?;
    let (spec, text) = configuration::read(&Path::new(&bundle).join("config.json"))?;
    let has_terminal = spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal).unwrap_or(false);
    console::check(has_terminal, !request.stays, request.console_socket.is_some())?;
    let host = Host::detect()?;
    let wanted = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
    let scoped = if global.systemd { Some(Scoped::of(&spec, wanted, request.id, &host)?) } else { None };
    let path = scoped.as_ref().map_or_else(|| limits::path(wanted, request.id), |scoped| scoped.place.path());
    let cgroup = host.open(&path).map_err(|error| Fault::from(error).during("linux.cgroupsPath"))?;

    // Before it is in the record, from which it would be taken away.
    limits::check_unused(&cgroup)?;

    let mut record = Record::new(request.id, spec.version(), &bundle);
    record.cgroup = cgroup.path().to_owned();
    record.unit = scoped.as_ref().map(|scoped| scoped.place.unit.clone()).unwrap_or_default();
    record.annotations = spec.annotations().clone().unwrap_or_default().into_iter().collect();
    let kept = kept_descriptors(request.preserve_fds)?;
    let mut compiled = compile(&spec, &record, request, &host, &cgroup, kept.len())?;
    for remark in &compiled.remarks {
        global.log.warn(remark);
    }
    if let Rootfs::Folder { path } = &compiled.bundle.container.rootfs {
        record.rootfs.clone_from(path);
    }
    let process = &mut compiled.bundle.container.process;
    home::add(&mut process.env, Path::new(&record.rootfs), process.uid);
    if let Some(count) = listening() {
        process.env.extend([format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()]);
    }

    let folder = store.claim(request.id)?;
    let mut maker =
        Maker { request, folder, record, scoped, taken: false, compiled, kept, embryo: None, terminal: None };
    match maker.build(&host, &text) {
        Ok(()) => {}
        Err(fault) => {
            let fault = limits::explain(fault, &cgroup);
            maker.undo(global, &cgroup);
            return Err(fault);
        }
    }
    let Maker { folder, record, compiled, embryo, terminal, .. } = maker;
    let embryo = embryo.ok_or_else(|| Fault::new("no process was made"))?;
    global.log.debug(&format!("container {} is process {}", record.id, record.pid));
    Ok(Made { folder, record, embryo, compiled, terminal })
}

fn compile(
    spec: &Spec,
    record: &Record,
    request: &Request<'_>,
    host: &Host,
    cgroup: &Cgroup,
    kept: usize,
) -> Outcome<Compiled> {
    let layout = CgroupLayout::from(host);
    let paths = cgroup.paths();
    let outside = Outside {
        id: request.id,
        bundle: &record.bundle,
        arch: Arch::NATIVE,
        cgroups: &layout,
        cgroup_paths: &paths,
        no_pivot: request.no_pivot,
        inherits_keyring: request.no_new_keyring,
        kept_descriptors: u32::try_from(kept).unwrap_or(0),
        state: state::for_hooks(record, "creating")?,
        start_state: state::for_hooks(record, "created")?,
    };
    Ok(bundle::compile(spec, &outside)?)
}

/// A container that is being made.
struct Maker<'a> {
    request: &'a Request<'a>,
    folder: Folder,
    record: Record,
    scoped: Option<Scoped>,
    /// Whether the unit is somebody else's.
    taken: bool,
    compiled: Compiled,
    kept: Vec<OwnedFd>,
    embryo: Option<Embryo>,
    terminal: Option<OwnedFd>,
}

impl Maker<'_> {
    fn build(&mut self, host: &Host, text: &[u8]) -> Outcome<()> {
        self.folder.write(&self.record)?;
        self.folder.keep_configuration(text)?;
        let held = self.hold(host)?;
        let cgroup = match &held {
            None => limits::make(host, &self.record.cgroup, &self.compiled.limits)?,
            Some(held) => limits::make(host, &self.record.cgroup, &held.limits)?,
        };
        let handles = cgroup.handles()?;
        let start = if self.request.waits { Some(self.listen()?) } else { None };
        // Hooks are run where the bundle is.
        env::set_current_dir(&self.record.bundle).during(|| format!("change to {}", self.record.bundle))?;
        let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
        let handed = Handed {
            stdio: [input.as_fd(), output.as_fd(), error.as_fd()],
            cgroup_tasks: &handles.tasks,
            cgroup_v2: handles.v2.as_ref().map(AsFd::as_fd),
            start: start.as_ref().map(AsFd::as_fd),
            kept: &self.kept,
        };
        let embryo = embryo::container(&self.compiled.bundle, &handed)?;
        drop(start);
        let embryo = self.embryo.insert(embryo);
        if let Some(held) = held {
            held.release(&self.record.unit, &cgroup, &self.compiled.limits)?;
        }
        loop {
            match embryo.talk.hear()? {
                Word::Created => break,
                Word::Hooks => {
                    self.record.pid = embryo.pid();
                    self.record.process_started = started(embryo.pid())?;
                    self.folder.write(&self.record)?;
                    let state = self.compiled.bundle.state.of(embryo.pid());
                    hooks::run(&self.compiled.hooks.prestart, "prestart", &state)?;
                    hooks::run(&self.compiled.hooks.create_runtime, "createRuntime", &state)?;
                    embryo.talk.go_on()?;
                }
                Word::Terminal(master) => match self.request.console_socket {
                    Some(socket) => console::send(Path::new(socket), &master)?,
                    None => self.terminal = Some(master),
                },
                Word::Seccomp(_) | Word::Running => {
                    return Err(Fault::new("the process did not wait for its start"));
                }
            }
        }
        self.record.pid = embryo.pid();
        self.record.process_started = started(embryo.pid())?;
        self.record.phase = Phase::Created;
        self.folder.write(&self.record)?;
        match self.request.pid_file {
            Some(path) => write_pid(Path::new(path), self.record.pid),
            None => Ok(()),
        }
    }

    /// Has systemd make the cgroup, where it is to.
    fn hold(&mut self, host: &Host) -> Outcome<Option<Held>> {
        let Some(scoped) = &self.scoped else { return Ok(None) };
        let cgroup = host.open(&self.record.cgroup)?;
        let held = Held::start(scoped, &self.record.id, &cgroup, &self.compiled.limits)?;
        self.taken = held.is_err();
        held.map(Some)
    }

    /// By a name relative to its folder, since a socket's path may have 107 bytes only.
    fn listen(&self) -> Outcome<OwnedFd> {
        let path = self.folder.path();
        let act = || format!("listen in {}", path.display());
        env::set_current_dir(path).during(act)?;
        berth_effect::run("start-listen", || seqpacket::listen(Path::new(START))).during(act)
    }

    /// Whatever was made is taken away; what can't be is told, and left to `delete --force`.
    fn undo(&self, global: &Global, cgroup: &Cgroup) {
        if let Some(embryo) = &self.embryo {
            embryo.kill();
        }
        let discarded = if self.taken { Ok(()) } else { discard(cgroup, &self.record.unit) };
        let outcome = discarded.and_then(|()| self.folder.remove());
        if let Err(fault) = outcome {
            global.log.warn(&format!("container {} is not wholly undone: {}", self.request.id, fault.message));
        }
    }
}

impl Made {
    /// Lets the process of `run` go on to its program, and runs the hooks that follow.
    pub(crate) fn start(&mut self) -> Outcome<()> {
        self.embryo.talk.go_on()?;
        follow(&mut self.embryo.talk, self.record.pid, &self.record, self.compiled.listener.as_ref())?;
        let state = state::for_hooks(&self.record, "running")?.of(self.record.pid);
        Ok(hooks::run(&self.compiled.hooks.poststart, "poststart", &state)?)
    }
}

/// Listens to a process until it is the program.
pub(crate) fn follow(talk: &mut Talk, pid: i32, record: &Record, listener: Option<&Listener>) -> Outcome<()> {
    loop {
        match talk.hear()? {
            Word::Running => return Ok(()),
            Word::Seccomp(notifications) => {
                let listener =
                    listener.ok_or_else(|| Fault::new("the seccomp filter has a listener that nobody asked for"))?;
                hand_over(listener, &notifications, pid, record)?;
                talk.go_on()?;
            }
            Word::Created | Word::Hooks | Word::Terminal(_) => {
                return Err(Fault::new("the process said something that is out of turn"));
            }
        }
    }
}

/// config-linux.md, "The Container Process State".
fn hand_over(listener: &Listener, notifications: &OwnedFd, pid: i32, record: &Record) -> Outcome<()> {
    let act = || format!("linux.seccomp.listenerPath {:?}", listener.path);
    let state = json!({
        "ociVersion": record.oci_version,
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": listener.metadata,
        "state": {
            "ociVersion": record.oci_version,
            "id": record.id,
            "status": "creating",
            "pid": record.pid,
            "bundle": record.bundle,
            "annotations": record.annotations,
        },
    });
    let socket = UnixStream::connect(&listener.path).during(act)?;
    seqpacket::send(socket.as_fd(), state.to_string().as_bytes(), &[notifications.as_fd()]).during(act)
}

/// Ends what is in a cgroup, and the cgroup with its unit, where it has one.
pub(crate) fn discard(cgroup: &Cgroup, unit: &str) -> Outcome<()> {
    if !unit.is_empty() {
        return Ok(Systemd::connect()?.end_scope(unit, cgroup)?);
    }
    cgroup.kill()?;
    Ok(cgroup.remove()?)
}

/// When a process was born.
pub(crate) fn started(pid: i32) -> Outcome<u64> {
    let stat = Stat::read(pid).ok_or_else(|| Fault::new(format!("process {pid} has no /proc entry")))?;
    Ok(stat.started)
}

/// Whole or not at all: somebody may be waiting for it.
pub(crate) fn write_pid(path: &Path, pid: i32) -> Outcome<()> {
    let act = || format!("--pid-file {}", path.display());
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput).map_err(io::Error::from).during(act)?;
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let temporary: PathBuf = folder.join(format!(".{}", name.to_string_lossy()));
    fs::write(&temporary, pid.to_string()).and_then(|()| fs::rename(&temporary, path)).during(act)
}

/// How many descriptors systemd hands over for sockets (sd_listen_fds(3)).
pub(crate) fn listening() -> Option<u32> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let for_us = number("LISTEN_PID") == Some(std::process::id());
    number("LISTEN_FDS").filter(|count| for_us && *count > 0)
}

/// Copies of the descriptors from 3 up that the program is to get.
pub(crate) fn kept_descriptors(preserved: u32) -> Outcome<Vec<OwnedFd>> {
    let count = listening().unwrap_or(0).saturating_add(preserved);
    if count > 1024 {
        return Err(Fault::new(format!("--preserve-fds: {count} are too many")));
    }
    fd::inherited(count).during(|| format!("--preserve-fds: {count} descriptors from 3 up"))
}
