//! RemoveContainer: a running one is killed first. A container that does not exist is removed.

use std::sync::Arc;
use std::time::Duration;

use berth_cri_proto::v1::{ContainerEventType, RemoveContainerRequest, RemoveContainerResponse};
use tonic::{Code, Status};

use crate::runtime::Runtime;
use crate::teardown;

pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: RemoveContainerRequest,
) -> Result<RemoveContainerResponse, Status> {
    let container = match runtime.container(&request.container_id) {
        Err(status) if status.code() == Code::NotFound => return Ok(RemoveContainerResponse {}),
        other => other?,
    };
    teardown::stop_container(runtime, &container, Duration::ZERO).await?;
    let _operation = runtime.operations.begin(&container.id, "remove").await;
    if runtime.container(&container.id).is_err() {
        return Ok(RemoveContainerResponse {});
    }
    // It may have been started while we waited.
    teardown::stop_container(runtime, &container, Duration::ZERO).await?;
    teardown::remove_container(runtime, &container).await?;
    runtime.tell(ContainerEventType::ContainerDeletedEvent, &container.id, &container.sandbox);
    Ok(RemoveContainerResponse {})
}
