//! `kill`.

use berth_sys::pidfd::PidFd;

use crate::arguments::{self, Until, flag};
use crate::fault::{During, Fault, Outcome};
use crate::global::Global;
use crate::signals;
use crate::state::{self, Status};
use crate::store::{Record, Store};

pub(super) fn run(global: &Global, own: &[String]) -> Outcome<u8> {
    let given = arguments::parse(own, &[flag("all", "a")], Until::End)?;
    let (id, signal) = match given.rest.as_slice() {
        [id] => (id, "SIGTERM"),
        [id, signal] => (id, signal.as_str()),
        _ => return Err(Fault::new("\"kill\" requires a minimum of 1 argument: the container's id")),
    };
    let signal = signals::parse(signal)?;
    let (folder, record) = Store::new(&global.root).open(id)?;
    if given.flag("all") {
        all(&record, signal)?;
        return Ok(0);
    }
    if Status::of(&folder, &record) == Status::Stopped {
        return Err(Fault::new("container not running"));
    }
    let process = state::process(&record)?.ok_or_else(|| Fault::new("container not running"))?;
    if signal == berth_sys::signal::SIGKILL && !has_own_pids(&folder)? {
        // Nobody else ends what its first process leaves behind.
        all(&record, signal)?;
    }
    process.send_signal(signal).during(|| format!("send signal {signal}"))?;
    Ok(0)
}

pub(super) fn has_own_pids(folder: &crate::store::Folder) -> Outcome<bool> {
    let spec = folder.configuration()?;
    let spaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().clone()).unwrap_or_default();
    let pid = oci_spec::runtime::LinuxNamespaceType::Pid;
    Ok(spaces.iter().any(|one| one.typ() == pid && one.path().is_none()))
}

/// Every process of the cgroup, by descriptors: one that is still listed after it was opened is the one meant.
fn all(record: &Record, signal: i32) -> Outcome<()> {
    let cgroup = state::cgroup(record)?;
    let opened: Vec<(i32, PidFd)> =
        cgroup.procs().into_iter().filter_map(|pid| Some((pid, PidFd::open(pid).ok()?))).collect();
    let still = cgroup.procs();
    for (pid, process) in opened.iter().filter(|(pid, _)| still.contains(pid)) {
        process.send_signal(signal).during(|| format!("send signal {signal} to process {pid}"))?;
    }
    Ok(())
}
