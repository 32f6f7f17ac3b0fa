//! `exec`.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use berth_cgroup::Host;
use berth_cri_core::bundle::{self, Joining, Listener};
use berth_cri_core::host::Arch;
use berth_oci::embryo::{self, Embryo, Handed, Word};
use berth_plan::bundle::BundleExec;
use berth_sys::pidfd::PidFd;
use berth_sys::signal::SignalFd;
use oci_spec::runtime::{Process, Spec};
use serde_json::{Value, json};

use crate::arguments::{self, Given, Known, Until, flag, value};
use crate::console::{self, Foreground};
use crate::fault::{During, Fault, Outcome};
use crate::global::Global;
use crate::launch::{self, write_pid};
use crate::state::{self, Status};
use crate::store::{Record, Store};
use crate::{configuration, home, limits, sealed, signals};

const KNOWN: [Known; 17] = [
    value("console-socket", ""),
    value("cwd", ""),
    value("env", "e"),
    flag("tty", "t"),
    value("user", "u"),
    value("additional-gids", "g"),
    value("process", "p"),
    flag("detach", "d"),
    value("pid-file", ""),
    value("process-label", ""),
    value("apparmor", ""),
    flag("no-new-privs", ""),
    value("cap", "c"),
    value("preserve-fds", ""),
    value("cgroup", ""),
    flag("ignore-paused", ""),
    flag("no-subreaper", ""),
];

/// What the caller takes for "the command did not run".
const FAILED: u8 = 255;

pub(super) fn run(global: &Global, own: &[String]) -> Outcome<u8> {
    execute(global, own).map_err(|fault| Fault { code: FAILED, ..fault.during("exec failed") })
}

fn execute(global: &Global, own: &[String]) -> Outcome<u8> {
    let given = arguments::parse(own, &KNOWN, Until::First)?;
    let Some((id, command)) = given.rest.split_first() else {
        return Err(Fault::new("\"exec\" requires a minimum of 1 argument: the container's id"));
    };
    sealed::ensure()?;
    let (folder, record) = Store::new(&global.root).open(id)?;
    match Status::of(&folder, &record) {
        Status::Running | Status::Created => {}
        Status::Paused if given.flag("ignore-paused") => {}
        Status::Paused => {
            return Err(Fault::new("cannot exec in a paused container (use --ignore-paused to override)"));
        }
        Status::Stopped => return Err(Fault::new("cannot exec in a stopped container")),
        Status::Creating => return Err(Fault::new("cannot exec in a container that is being created")),
    }
    let target = state::process(&record)?.ok_or_else(|| Fault::new("cannot exec in a stopped container"))?;
    let spec = folder.configuration()?;
    let process = process(&given, command, &spec)?;
    let detach = given.flag("detach");
    let socket = given.value("console-socket");
    console::check(process.terminal().unwrap_or(false), detach, socket.is_some())?;
    let kept = launch::kept_descriptors(given.number("preserve-fds")?.unwrap_or(0))?;
    let joining = Joining { spec: &spec, arch: Arch::NATIVE, kept_descriptors: u32::try_from(kept.len()).unwrap_or(0) };
    let (mut plan, listener) = bundle::exec(&process, &joining)?;
    home::add(&mut plan.process.env, &PathBuf::from(format!("/proc/{}/root", record.pid)), plan.process.uid);
    let host = Host::detect()?;
    let cgroup = limits::of_process(&host, record.pid, &record.cgroup)?;
    let cgroup = match given.value("cgroup") {
        None => cgroup,
        Some(below) if below.starts_with('/') && !below.contains(':') => {
            host.open(&format!("{}{below}", record.cgroup))?
        }
        Some(_) => return Err(Fault::new("--cgroup: give a path below the container's cgroup, from / on")),
    };
    let handles = cgroup.handles()?;
    let passed = if detach { None } else { Some(SignalFd::block(&signals::PASSED_ON)) };
    let passed = passed.transpose().during(|| "watch for signals".to_owned())?;
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    let handed = Handed {
        stdio: [input.as_fd(), output.as_fd(), error.as_fd()],
        cgroup_tasks: &handles.tasks,
        cgroup_v2: handles.v2.as_ref().map(AsFd::as_fd),
        start: None,
        kept: &kept,
    };
    let mut joined = Joined { record: &record, listener: listener.as_ref(), socket, pid_file: given.value("pid-file") };
    let (embryo, terminal) = joined.launch(&plan, &target, &handed)?;
    let Some(passed) = passed else { return Ok(0) };
    let process = embryo.process().during(|| "open the process".to_owned())?;
    let ended = Foreground { process: &process, signals: &passed, terminal }.wait()?;
    u8::try_from(ended.code()).map_err(|_| Fault::new(format!("the process ended with {}", ended.code())))
}

struct Joined<'a> {
    record: &'a Record,
    listener: Option<&'a Listener>,
    socket: Option<&'a str>,
    pid_file: Option<&'a str>,
}

impl Joined<'_> {
    fn launch(
        &mut self,
        plan: &BundleExec,
        target: &PidFd,
        handed: &Handed<'_>,
    ) -> Outcome<(Embryo, Option<std::os::fd::OwnedFd>)> {
        let mut embryo = embryo::exec(plan, target, handed)?;
        let started = self.follow(&mut embryo);
        if started.is_err() {
            embryo.kill();
        }
        started.map(|terminal| (embryo, terminal))
    }

    fn follow(&mut self, embryo: &mut Embryo) -> Outcome<Option<std::os::fd::OwnedFd>> {
        let mut terminal = None;
        loop {
            match embryo.talk.hear()? {
                Word::Terminal(master) => match self.socket {
                    Some(socket) => console::send(Path::new(socket), &master)?,
                    None => terminal = Some(master),
                },
                Word::Created => break,
                Word::Hooks | Word::Seccomp(_) | Word::Running => {
                    return Err(Fault::new("the process said something that is out of turn"));
                }
            }
        }
        // Whoever reads it finds the process there, and its program not begun.
        if let Some(path) = self.pid_file {
            write_pid(Path::new(path), embryo.pid())?;
        }
        embryo.talk.go_on()?;
        let pid = embryo.pid();
        launch::follow(&mut embryo.talk, pid, self.record, self.listener)?;
        Ok(terminal)
    }
}

/// From a file, or the container's own with what the command line says.
fn process(given: &Given, command: &[String], spec: &Spec) -> Outcome<Process> {
    if let Some(path) = given.value("process") {
        let text = fs::read(path).during(|| format!("--process {path}"))?;
        let mut process: Process =
            configuration::parse(&text).map_err(|fault| fault.during(format!("--process {path}: process")))?;
        if given.flag("tty") {
            process.set_terminal(Some(true));
        }
        return Ok(process);
    }
    let own = spec.process().as_ref().ok_or_else(|| Fault::new("process: the container's configuration has none"))?;
    let mut value = serde_json::to_value(own).map_err(|error| Fault::new(error.to_string()))?;
    change(&mut value, given, command)?;
    // By its text, for which the program has all it needs already.
    configuration::parse(value.to_string().as_bytes()).map_err(|fault| fault.during("the command line: process"))
}

fn change(value: &mut Value, given: &Given, command: &[String]) -> Outcome<()> {
    if command.is_empty() {
        return Err(Fault::new("process args cannot be empty"));
    }
    if given.value("process-label").is_some_and(|label| !label.is_empty()) {
        return Err(Fault::new("--process-label: not supported"));
    }
    value["args"] = json!(command);
    value["terminal"] = json!(given.flag("tty"));
    if let Some(cwd) = given.value("cwd").filter(|cwd| !cwd.is_empty()) {
        value["cwd"] = json!(cwd);
    }
    if let Some(profile) = given.value("apparmor") {
        value["apparmorProfile"] = json!(profile);
    }
    if given.flag("no-new-privs") {
        value["noNewPrivileges"] = json!(true);
    }
    extend(&mut value["env"], given.values("env").map(|entry| json!(entry)));
    for set in ["bounding", "effective", "permitted"] {
        extend(&mut value["capabilities"][set], given.values("cap").map(|name| json!(name)));
    }
    if let Some(user) = given.value("user").filter(|user| !user.is_empty()) {
        // Numbers only: "1" is user 1, whatever the image calls so (CVE-2026-30892).
        let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number < u32::MAX);
        let bad = || Fault::new(format!("--user: {user:?} is not UID or UID:GID, in numbers"));
        let (uid, gid) = user.split_once(':').map_or((user, None), |(uid, gid)| (uid, Some(gid)));
        value["user"]["uid"] = json!(number(uid).ok_or_else(bad)?);
        if let Some(gid) = gid {
            value["user"]["gid"] = json!(number(gid).ok_or_else(bad)?);
        }
    }
    for gid in given.values("additional-gids") {
        let number = gid.parse::<u32>().map_err(|_| Fault::new(format!("--additional-gids: {gid:?} is no number")))?;
        extend(&mut value["user"]["additionalGids"], [json!(number)].into_iter());
    }
    Ok(())
}

fn extend(list: &mut Value, more: impl Iterator<Item = Value>) {
    let mut more = more.peekable();
    if more.peek().is_none() {
        return;
    }
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut() {
        list.extend(more);
    }
}
