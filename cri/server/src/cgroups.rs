//! A container's cgroup, and the way into it.

use berth_cgroup::{CgroupError, Handles, Resources};
use berth_cri_core::device_filter;

use crate::container::Container;
use crate::runtime::Runtime;

/// What the shim is handed so that a process enters a cgroup; the default is nothing.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) handles: Handles,
    /// How many of the descriptors are v1's.
    pub(crate) tasks: u8,
}

/// Makes and limits a container's cgroup.
pub(crate) fn make(runtime: &Runtime, container: &Container, limits: &Resources) -> Result<Entry, CgroupError> {
    let cgroup = runtime.create_cgroup(&container.record.cgroup, limits)?;
    let rules = &container.record.devices;
    if !cgroup.limit_devices(&rules.devices())? {
        let program = device_filter::compile(&rules.filter());
        if !program.is_empty() && !cgroup.filter_devices(&program)? {
            tracing::warn!(container = container.id, "device nodes are limited by capabilities alone");
        }
    }
    entry(cgroup.handles()?)
}

/// The way into a running container's cgroup.
pub(crate) fn of(runtime: &Runtime, container: &Container) -> Result<Entry, CgroupError> {
    entry(runtime.cgroups.open(&container.record.cgroup)?.handles()?)
}

fn entry(handles: Handles) -> Result<Entry, CgroupError> {
    let tasks = u8::try_from(handles.tasks.len()).map_err(|_| CgroupError::Unsupported {
        what: "cgroups",
        reason: "there are more than 255 hierarchies".to_owned(),
    })?;
    Ok(Entry { handles, tasks })
}
