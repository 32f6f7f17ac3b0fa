//! UpdateContainerResources: other limits for a container, running or yet to be started.
//!
//! The cgroup is changed first, then the record: whoever is killed in between is told the old limits by the next life,
//! and asks again. What the kernel refuses is taken back as far as it goes.

use std::sync::Arc;

use berth_cgroup::{CgroupError, Resources};
use berth_cri_core::{ConfigError, resources};
use berth_cri_proto::v1::{LinuxContainerResources, UpdateContainerResourcesRequest, UpdateContainerResourcesResponse};
use berth_effect::record;
use tonic::Status;

use super::{invalid, required};
use crate::cgroups;
use crate::container::Container;
use crate::limits;
use crate::records;
use crate::runtime::Runtime;
use crate::tasks::blocking;

pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: UpdateContainerResourcesRequest,
) -> Result<UpdateContainerResourcesResponse, Status> {
    let container = runtime.container(&request.container_id)?;
    let asked = required(request.linux, "linux")?;
    let _operation = runtime.operations.begin(&container.id, "update").await;
    let old = container.limits();
    let new = limits::merge(old.clone(), asked.clone());
    let change = change(&asked, &new).map_err(|error| invalid(&error))?;
    let (work, limited) = (Arc::clone(runtime), Arc::clone(&container));
    let running = container.is_running();
    let (before, after) = (old, new.clone());
    blocking(move || {
        if running {
            apply(&work, &limited, &change, &before)
                .map_err(|error| limits::refused(&error, &format!("failed to limit container {:?}", limited.id)))?;
        }
        write(&work, &limited, after).map_err(|error| {
            Status::internal(format!("failed to write down the limits of container {:?}: {error}", limited.id))
        })
    })
    .await??;
    container.set_limits(new);
    Ok(UpdateContainerResourcesResponse {})
}

/// What is written: the fields that were asked for, with those that the kernel sees together with them.
fn change(asked: &LinuxContainerResources, merged: &LinuxContainerResources) -> Result<Resources, ConfigError> {
    let whole = resources::from_cri(merged)?;
    let mut change = resources::from_cri(asked)?;
    if change.cpu_quota.is_some() || change.cpu_period.is_some() {
        (change.cpu_quota, change.cpu_period) = (whole.cpu_quota, whole.cpu_period);
    }
    if change.memory_limit.is_some() || change.memory_swap.is_some() {
        (change.memory_limit, change.memory_swap) = (whole.memory_limit, whole.memory_swap);
    }
    Ok(change)
}

fn apply(
    runtime: &Runtime,
    container: &Container,
    change: &Resources,
    old: &LinuxContainerResources,
) -> Result<(), CgroupError> {
    let cgroup = runtime.cgroups.open(&container.record.cgroup)?;
    let write = |limits: &Resources| {
        cgroups::limit(&container.record.unit, &cgroup, limits).and_then(|()| cgroup.apply(limits))
    };
    let outcome = write(change);
    if outcome.is_err()
        && let Ok(old) = resources::from_cri(old)
        && let Err(error) = write(&old)
    {
        tracing::warn!(container = container.id, %error, "old limits can't all be put back");
    }
    outcome
}

/// The container's record with other limits.
fn write(runtime: &Runtime, container: &Container, limits: LinuxContainerResources) -> std::io::Result<()> {
    let mut record = container.record.clone();
    record.config.0.linux.get_or_insert_default().resources = Some(limits);
    let bytes = records::encode(&runtime.boot_id, record).map_err(std::io::Error::other)?;
    record::write_durable(&runtime.places.container_record(&container.id), &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_sees_together_is_written_together() {
        let old = LinuxContainerResources {
            cpu_period: 50_000,
            cpu_quota: 20_000,
            memory_limit_in_bytes: 64 << 20,
            memory_swap_limit_in_bytes: 128 << 20,
            ..LinuxContainerResources::default()
        };
        let asked = LinuxContainerResources { cpu_quota: 30_000, ..LinuxContainerResources::default() };
        let one = change(&asked, &limits::merge(old.clone(), asked.clone())).expect("valid");
        assert_eq!((one.cpu_quota, one.cpu_period, one.memory_limit), (Some(30_000), Some(50_000), None));
        let asked = LinuxContainerResources { memory_limit_in_bytes: 96 << 20, ..LinuxContainerResources::default() };
        let one = change(&asked, &limits::merge(old.clone(), asked.clone())).expect("valid");
        assert_eq!((one.memory_limit, one.memory_swap, one.cpu_quota), (Some(96 << 20), Some(128 << 20), None));
        // Above what was asked for both: an error that names the field.
        let asked = LinuxContainerResources { memory_limit_in_bytes: 256 << 20, ..LinuxContainerResources::default() };
        let error = change(&asked, &limits::merge(old, asked.clone())).expect_err("below the memory limit");
        assert!(error.to_string().contains("memory_swap_limit_in_bytes"), "{error}");
    }
}
