//! ReopenContainerLog: after the kubelet has renamed the log. The new file is there when the call returns.

use std::sync::Arc;

use berth_cri_proto::v1::{ReopenContainerLogRequest, ReopenContainerLogResponse};
use berth_plan::message::Request;
use tonic::Status;

use crate::runtime::Runtime;

pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: ReopenContainerLogRequest,
) -> Result<ReopenContainerLogResponse, Status> {
    let container = runtime.container(&request.container_id)?;
    let shim = runtime.sandbox(&container.sandbox).ok().and_then(|sandbox| sandbox.shim());
    let Some(shim) = shim.filter(|_| container.is_running()) else {
        return Err(Status::failed_precondition(format!("container {:?} is not running", container.id)));
    };
    let reopened = shim.order(Request::ReopenLog { container: container.id.clone() }, &[]).await;
    reopened.map_err(|error| Status::unknown(format!("failed to reopen {:?}: {error}", container.record.log_path)))?;
    Ok(ReopenContainerLogResponse {})
}
