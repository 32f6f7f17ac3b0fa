//! A container's cgroup, and the way into it.

use berth_cgroup::{Cgroup, CgroupError, Handles, Resources};
use berth_cri_core::device_filter;

use crate::container::Container;
use crate::records::ContainerRecord;
use crate::runtime::Runtime;

mod scope;

pub(crate) use scope::{Held, end_slice, limit, limit_slice};

/// What the shim is handed so that a process enters a cgroup; the default is nothing.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) handles: Handles,
    /// How many of the descriptors are v1's.
    pub(crate) tasks: u8,
    /// What keeps a scope while it is empty.
    pub(crate) held: Option<Held>,
}

/// Makes and limits a container's cgroup.
pub(crate) fn make(runtime: &Runtime, container: &Container, limits: &Resources) -> Result<Entry, CgroupError> {
    let held = Held::start(runtime, container, limits)?;
    let limits = held.as_ref().map_or(limits, |held| &held.limits);
    let cgroup = runtime.create_cgroup(&container.record.cgroup, limits)?;
    limit_devices(&cgroup, container)?;
    Ok(Entry { held, ..entry(cgroup.handles()?)? })
}

fn limit_devices(cgroup: &Cgroup, container: &Container) -> Result<(), CgroupError> {
    let rules = &container.record.devices;
    if !cgroup.limit_devices(&rules.devices())? {
        let program = device_filter::compile(&rules.filter());
        if !program.is_empty() && !cgroup.filter_devices(&program)? {
            tracing::warn!(container = container.id, "device nodes are limited by capabilities alone");
        }
    }
    Ok(())
}

/// The way into a running container's cgroup.
pub(crate) fn of(runtime: &Runtime, container: &Container) -> Result<Entry, CgroupError> {
    entry(runtime.cgroups.open(&container.record.cgroup)?.handles()?)
}

/// Kills what is in a container's cgroup and removes it, with its unit. One that is gone is fine.
pub(crate) fn end(runtime: &Runtime, record: &ContainerRecord) -> Result<(), CgroupError> {
    let cgroup = runtime.cgroups.open(&record.cgroup)?;
    cgroup.kill()?;
    // Without systemd's help the processes and the cgroup can be ended all the same.
    let stopped = scope::stop(&record.unit);
    cgroup.remove().and(stopped)
}

fn entry(handles: Handles) -> Result<Entry, CgroupError> {
    let tasks = u8::try_from(handles.tasks.len()).map_err(|_| CgroupError::Unsupported {
        what: "cgroups",
        reason: "there are more than 255 hierarchies".to_owned(),
    })?;
    Ok(Entry { handles, tasks, held: None })
}
