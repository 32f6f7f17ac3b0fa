//! StopPodSandbox: forces its containers to end, gives its network back. A sandbox that does not exist is stopped.

use std::sync::Arc;

use berth_cri_proto::v1::{StopPodSandboxRequest, StopPodSandboxResponse};
use tonic::{Code, Status};

use crate::runtime::Runtime;
use crate::teardown;

pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: StopPodSandboxRequest,
) -> Result<StopPodSandboxResponse, Status> {
    let sandbox = match runtime.sandbox(&request.pod_sandbox_id) {
        Err(status) if status.code() == Code::NotFound => return Ok(StopPodSandboxResponse {}),
        other => other?,
    };
    let _operation = runtime.operations.begin(&sandbox.id, "stop").await;
    // Somebody else may have removed it while we waited.
    if runtime.sandbox(&sandbox.id).is_err() {
        return Ok(StopPodSandboxResponse {});
    }
    teardown::stop_sandbox(runtime, &sandbox).await?;
    tracing::info!(sandbox = sandbox.id, "sandbox stopped");
    Ok(StopPodSandboxResponse {})
}
