//! CheckpointContainer: refused. It would need criu driven from inside the pod's namespaces.

use std::sync::Arc;

use berth_cri_proto::v1::{CheckpointContainerRequest, CheckpointContainerResponse};
use tonic::Status;

use crate::runtime::Runtime;

#[expect(clippy::unused_async, reason = "all calls have one form")]
pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: CheckpointContainerRequest,
) -> Result<CheckpointContainerResponse, Status> {
    let container = runtime.container(&request.container_id)?;
    Err(Status::unimplemented(format!(
        "CheckpointContainer is not implemented: Berth does not drive criu yet; container {:?} is as it was",
        container.id
    )))
}
