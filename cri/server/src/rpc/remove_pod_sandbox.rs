//! RemovePodSandbox: with its containers, whatever they do. A sandbox that does not exist is removed.

use std::sync::Arc;

use berth_cri_proto::v1::{ContainerEventType, RemovePodSandboxRequest, RemovePodSandboxResponse};
use tonic::{Code, Status};

use crate::records::Phase;
use crate::runtime::Runtime;
use crate::tasks::blocking;
use crate::{sandbox, teardown};

pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: RemovePodSandboxRequest,
) -> Result<RemovePodSandboxResponse, Status> {
    let sandbox = match runtime.sandbox(&request.pod_sandbox_id) {
        Err(status) if status.code() == Code::NotFound => return Ok(RemovePodSandboxResponse {}),
        other => other?,
    };
    let _operation = runtime.operations.begin(&sandbox.id, "remove").await;
    // Somebody else may have removed it while we waited.
    if runtime.sandbox(&sandbox.id).is_err() {
        return Ok(RemovePodSandboxResponse {});
    }
    teardown::stop_sandbox(runtime, &sandbox).await?;
    let (work, going) = (Arc::clone(runtime), Arc::clone(&sandbox));
    blocking(move || sandbox::write(&work, going.record(Phase::Removing))).await?.map_err(|error| {
        Status::internal(format!("failed to write the record of sandbox {:?}: {error}", sandbox.id))
    })?;
    for container in runtime.containers_of(&sandbox.id) {
        let _operation = runtime.operations.begin(&container.id, "remove").await;
        teardown::remove_container(runtime, &container).await?;
        runtime.tell(ContainerEventType::ContainerDeletedEvent, &container.id, &sandbox.id);
    }
    let (work, going) = (Arc::clone(runtime), Arc::clone(&sandbox));
    blocking(move || teardown::dismantle(&work, &going.id, &going.made_cgroups))
        .await?
        .map_err(|error| Status::unknown(format!("failed to remove sandbox {:?}: {error}", sandbox.id)))?;
    {
        let mut world = runtime.world();
        world.sandboxes.remove(&sandbox.id);
        world.sandbox_names.retain(|_, id| *id != sandbox.id);
    }
    let last = Some(sandbox.status());
    runtime.tell_with(ContainerEventType::ContainerDeletedEvent, &sandbox.id, &sandbox.id, last);
    tracing::info!(sandbox = sandbox.id, "sandbox removed");
    Ok(RemovePodSandboxResponse {})
}
