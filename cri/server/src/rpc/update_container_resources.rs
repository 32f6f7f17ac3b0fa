//! UpdateContainerResources: other limits for a container, running or yet to be started.

use std::sync::Arc;

use berth_cri_core::resources;
use berth_cri_proto::v1::{LinuxContainerResources, UpdateContainerResourcesRequest, UpdateContainerResourcesResponse};
use tonic::Status;

use super::{invalid, required};
use crate::runtime::Runtime;
use crate::tasks::blocking;

pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: UpdateContainerResourcesRequest,
) -> Result<UpdateContainerResourcesResponse, Status> {
    let container = runtime.container(&request.container_id)?;
    let asked = required(request.linux, "linux")?;
    let limits = resources::from_cri(&asked).map_err(|error| invalid(&error))?;
    let _operation = runtime.operations.begin(&container.id, "update").await;
    if container.is_running() {
        let (work, cgroup) = (Arc::clone(runtime), container.record.cgroup.clone());
        let applied = blocking(move || work.cgroups.open(&cgroup).and_then(|cgroup| cgroup.apply(&limits))).await?;
        applied.map_err(|error| Status::unknown(format!("failed to limit container {:?}: {error}", container.id)))?;
    }
    container.set_limits(merge(container.limits(), asked));
    Ok(UpdateContainerResourcesResponse {})
}

/// What is 0 or empty is left as it was.
fn merge(old: LinuxContainerResources, new: LinuxContainerResources) -> LinuxContainerResources {
    let number = |new: i64, old: i64| if new == 0 { old } else { new };
    let text = |new: String, old: String| if new.is_empty() { old } else { new };
    LinuxContainerResources {
        cpu_period: number(new.cpu_period, old.cpu_period),
        cpu_quota: number(new.cpu_quota, old.cpu_quota),
        cpu_shares: number(new.cpu_shares, old.cpu_shares),
        memory_limit_in_bytes: number(new.memory_limit_in_bytes, old.memory_limit_in_bytes),
        // It can't be changed in a process that runs.
        oom_score_adj: old.oom_score_adj,
        cpuset_cpus: text(new.cpuset_cpus, old.cpuset_cpus),
        cpuset_mems: text(new.cpuset_mems, old.cpuset_mems),
        hugepage_limits: if new.hugepage_limits.is_empty() { old.hugepage_limits } else { new.hugepage_limits },
        unified: old.unified.into_iter().chain(new.unified).collect(),
        memory_swap_limit_in_bytes: number(new.memory_swap_limit_in_bytes, old.memory_swap_limit_in_bytes),
    }
}
