//! `start`.

use std::env;
use std::fs;
use std::path::Path;

use berth_cri_core::bundle::Listener;
use berth_oci::embryo::Talk;
use berth_oci::hooks;
use berth_sys::seqpacket;

use crate::arguments::{self, Until};
use crate::fault::{During, Fault, Outcome};
use crate::global::Global;
use crate::state::{self, Status};
use crate::store::{START, Store};
use crate::{launch, limits, log};

pub(super) fn run(global: &Global, own: &[String]) -> Outcome<u8> {
    let given = arguments::parse(own, &[], Until::End)?;
    let id = given.id("start")?;
    let (folder, record) = Store::new(&global.root).open(id)?;
    match Status::of(&folder, &record) {
        Status::Created => {}
        Status::Stopped => return Err(Fault::new("cannot start a container that has stopped")),
        Status::Running => return Err(Fault::new("cannot start an already running container")),
        other => return Err(Fault::new(format!("cannot start a container in the {} state", other.name()))),
    }
    let spec = folder.configuration()?;
    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().clone());
    let listener = profile.and_then(|profile| {
        let path = profile.listener_path().as_ref()?.to_string_lossy().into_owned();
        Some(Listener { path, metadata: profile.listener_metadata().clone().unwrap_or_default() })
    });
    let act = || format!("start the container {id}");
    // A socket's path may have 107 bytes only.
    env::set_current_dir(folder.path()).during(act)?;
    let connection = match seqpacket::connect(Path::new(START)) {
        Ok(connection) => connection,
        // Somebody else was faster, or the process has just died.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            let _ = fs::remove_file(START);
            let word = if Status::of(&folder, &record) == Status::Stopped { "a stopped" } else { "an already running" };
            return Err(Fault::new(format!("cannot start {word} container")));
        }
        other => other.during(act)?,
    };
    let mut talk = Talk::resume(connection);
    let followed = launch::follow(&mut talk, record.pid, &record, listener.as_ref());
    let _ = fs::remove_file(folder.path().join(START));
    followed.map_err(|fault| match state::cgroup(&record) {
        Ok(cgroup) => limits::explain(fault, &cgroup),
        Err(_) => fault,
    })?;
    poststart(&global.log, &spec, &record)?;
    Ok(0)
}

/// Hooks after the start: one that fails ends the container.
fn poststart(log: &log::Log, spec: &oci_spec::runtime::Spec, record: &crate::store::Record) -> Outcome<()> {
    let hooks = berth_cri_core::bundle::Hooks::of(spec)?.poststart;
    if hooks.is_empty() {
        return Ok(());
    }
    let _ = env::set_current_dir(&record.bundle);
    let state = state::for_hooks(record, "running")?.of(record.pid);
    hooks::run(&hooks, "poststart", &state).map_err(|failure| {
        if let Err(fault) = state::process(record).and_then(|process| match process {
            Some(process) => process.kill().during(|| "kill the container's process".to_owned()),
            None => Ok(()),
        }) {
            log.warn(&fault.message);
        }
        Fault::from(failure)
    })
}
