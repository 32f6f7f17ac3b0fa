//! `delete`.

use std::env;

use berth_cri_core::bundle::Hooks;
use berth_oci::hooks;

use crate::arguments::{self, Until, flag};
use crate::fault::{During, Fault, Outcome};
use crate::global::Global;
use crate::launch;
use crate::state::{self, Status};
use crate::store::{Folder, Record, Store};

/// How long a killed process may take to end.
const PATIENCE: i32 = 10_000;

pub(super) fn run(global: &Global, own: &[String]) -> Outcome<u8> {
    let given = arguments::parse(own, &[flag("force", "f")], Until::End)?;
    let (id, force) = (given.id("delete")?, given.flag("force"));
    let store = Store::new(&global.root);
    let Some(folder) = store.folder(id)? else {
        return if force { Ok(0) } else { Err(Fault::new(format!("container does not exist: {id}"))) };
    };
    let record = match folder.read() {
        Ok(Some(record)) => record,
        // Its maker was killed between the folder and the record, so there is nothing else yet.
        Ok(None) if force => return folder.remove().map(|()| 0),
        Ok(None) => return Err(Fault::new(format!("container does not exist: {id}"))),
        Err(fault) => return Err(fault),
    };
    match Status::of(&folder, &record) {
        Status::Stopped => {}
        // Its process waits, and was never the container's program.
        Status::Created => end(&record)?,
        _ if force => end(&record)?,
        status => {
            let status = status.name();
            return Err(Fault::new(format!("cannot delete container {id} that is not stopped: {status}")));
        }
    }
    destroy(global, &folder, &record)?;
    Ok(0)
}

/// Kills the first process and waits for its end.
fn end(record: &Record) -> Outcome<()> {
    let Some(process) = state::process(record)? else { return Ok(()) };
    let cgroup = state::cgroup(record)?;
    process.kill().during(|| "kill the container's process".to_owned())?;
    // What is frozen does not die.
    if cgroup.exists() && cgroup.is_freezing() {
        cgroup.freeze(false)?;
    }
    if state::wait(&process, PATIENCE)? {
        return Ok(());
    }
    Err(Fault::new(format!("process {} has not ended within {} s of SIGKILL", record.pid, PATIENCE / 1000)))
}

/// Takes away what is left of a container whose process has ended, and runs the hooks for that; those that fail are told
/// and change nothing.
pub(super) fn destroy(global: &Global, folder: &Folder, record: &Record) -> Outcome<()> {
    if !record.cgroup.is_empty() {
        launch::discard(&state::cgroup(record)?, &record.unit)?;
    }
    // A bundle whose configuration can't be read any more has no hooks.
    let hooks = folder.configuration().and_then(|spec| Ok(Hooks::of(&spec)?.poststop)).unwrap_or_default();
    folder.remove()?;
    if hooks.is_empty() {
        return Ok(());
    }
    let _ = env::set_current_dir(&record.bundle);
    let state = state::for_hooks(record, "stopped")?.of(0);
    for hook in &hooks {
        if let Err(failure) = hooks::run(std::slice::from_ref(hook), "poststop", &state) {
            global.log.warn(&failure.message);
        }
    }
    Ok(())
}
