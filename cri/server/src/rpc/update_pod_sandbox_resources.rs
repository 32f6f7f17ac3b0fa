//! UpdatePodSandboxResources: what the containers of a pod and its overhead may use together.
//!
//! It is kept, and shown by the verbose status. A pod's cgroup is limited by whoever made it: the kubelet and the agent
//! do that themselves before or after this call, so only one that this runtime made for this sandbox alone is limited
//! here.

use std::sync::Arc;

use berth_cri_core::resources;
use berth_cri_proto::v1::{UpdatePodSandboxResourcesRequest, UpdatePodSandboxResourcesResponse};
use tonic::Status;

use super::invalid;
use crate::cgroups;
use crate::limits;
use crate::records::{Encoded, Phase, PodResources};
use crate::runtime::Runtime;
use crate::sandbox;
use crate::tasks::blocking;

pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: UpdatePodSandboxResourcesRequest,
) -> Result<UpdatePodSandboxResourcesResponse, Status> {
    let sandbox = runtime.sandbox(&request.pod_sandbox_id)?;
    let _operation = runtime.operations.begin(&sandbox.id, "update").await;
    if !sandbox.is_ready() {
        return Err(Status::failed_precondition(format!("sandbox {:?} is not ready", sandbox.id)));
    }
    let old = sandbox.resources();
    let known = old.clone().unwrap_or_default();
    let new = PodResources {
        overhead: Encoded(request.overhead.unwrap_or(known.overhead.0)),
        resources: Encoded(request.resources.unwrap_or(known.resources.0)),
    };
    for part in [&new.overhead.0, &new.resources.0] {
        resources::from_cri(part).map_err(|error| invalid(&error))?;
    }
    let total = limits::sum(&new.resources.0, &new.overhead.0);
    let limits = resources::from_cri(&total).map_err(|error| invalid(&error))?;
    let (work, limited) = (Arc::clone(runtime), Arc::clone(&sandbox));
    blocking(move || {
        let parent = &limited.plan.cgroup_parent;
        let others = work.sandboxes().iter().filter(|other| other.plan.cgroup_parent == *parent).count();
        if limited.made_cgroups.contains(parent) && others == 1 {
            // Made with the first container, if not by then.
            cgroups::limit_slice(&limited.plan.slice, &limits)
                .and_then(|()| work.create_cgroup(parent, &limits))
                .map_err(|error| limits::refused(&error, &format!("failed to limit sandbox {:?}", limited.id)))?;
        }
        limited.set_resources(Some(new));
        sandbox::write(&work, limited.record(Phase::Live(limited.state()))).map_err(|error| {
            limited.set_resources(old);
            Status::internal(format!("failed to write down the limits of sandbox {:?}: {error}", limited.id))
        })
    })
    .await??;
    Ok(UpdatePodSandboxResourcesResponse {})
}
