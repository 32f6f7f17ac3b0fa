//! The container's cgroup: where it is, and making and changing it. What systemd makes of it is in [`crate::scope`].

use std::fs;
use std::path::Path;

use berth_cgroup::{Cgroup, Host, Layout};
use berth_cri_core::bundle::resources::Limits;
use berth_cri_core::device_filter;
use berth_systemd::Systemd;

use crate::fault::{Fault, Outcome};

/// Where `linux.cgroupsPath` leads; the id below the root where it says nothing. A relative one begins at the root, too.
pub(crate) fn path(wanted: Option<&Path>, id: &str) -> String {
    match wanted.map(Path::to_string_lossy).filter(|path| !path.is_empty()) {
        None => format!("/{id}"),
        Some(path) if path.starts_with('/') => path.into_owned(),
        Some(path) => format!("/{path}"),
    }
}

/// Refuses a cgroup that is in use: what is in it would be ended with the container.
pub(crate) fn check_unused(cgroup: &Cgroup) -> Outcome<()> {
    if !cgroup.exists() {
        return Ok(());
    }
    let (count, path) = (cgroup.procs().len(), cgroup.path());
    let problem = if count > 0 {
        format!("container's cgroup is not empty: {count} process(es) found in {path}")
    } else if cgroup.is_freezing() {
        format!("container's cgroup {path} unexpectedly frozen")
    } else {
        return Ok(());
    };
    Err(Fault::new(format!("linux.cgroupsPath: {problem}")))
}

/// Makes the cgroup and limits it.
pub(crate) fn make(host: &Host, path: &str, limits: &Limits) -> Outcome<Cgroup> {
    let cgroup = host.create(path, &limits.resources)?;
    cgroup.set(&limits.settings)?;
    let lines = device_filter::lines(&limits.devices);
    if !cgroup.write_device_rules(&lines)? {
        let program = device_filter::compile(&limits.devices);
        if !program.is_empty() {
            cgroup.filter_devices(&program)?;
        }
    }
    Ok(cgroup)
}

/// A start's failure, with its cause where that is the memory's limit: all that is seen of it otherwise is a kill.
pub(crate) fn explain(fault: Fault, cgroup: &Cgroup) -> Fault {
    match cgroup.oom_kills() {
        Ok(1..) => {
            fault.during("linux.resources.memory.limit: the container was OOM-killed before its program ran; raise it")
        }
        _ => fault,
    }
}

/// Changes the limits of a cgroup, which may be a unit's.
pub(crate) fn change(cgroup: &Cgroup, limits: &Limits, unit: &str) -> Outcome<()> {
    if limits.check_before_update
        && let Some(limit) = limits.resources.memory_limit.and_then(|limit| u64::try_from(limit).ok())
        && let Some(memory) = cgroup.memory()?
        && memory.usage > limit
    {
        let usage = memory.usage;
        return Err(Fault::new(format!(
            "linux.resources.memory.limit: unable to set memory limit to {limit} (current usage: {usage})"
        )));
    }
    if !unit.is_empty() {
        Systemd::connect()?.limit(unit, cgroup, &limits.resources, &limits.settings)?;
    }
    cgroup.apply(&limits.resources)?;
    Ok(cgroup.set(&limits.settings)?)
}

/// The cgroup that a process of a container is in, where its first process may have moved to: on v2 a cgroup that has
/// some below it takes no processes itself.
pub(crate) fn of_process(host: &Host, pid: i32, otherwise: &str) -> Outcome<Cgroup> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let own = text.lines().find_map(|line| line.strip_prefix("0::"));
    let path = match own {
        Some(own) if host.layout() == Layout::V2 && own.starts_with(otherwise) => own,
        _ => otherwise,
    };
    Ok(host.open(path)?)
}
