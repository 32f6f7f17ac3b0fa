//! StopContainer: its stop signal, and SIGKILL after the grace period. A container that does not exist is stopped.
//!
//! It takes no turn: a second call with a shorter period shortens the first one's.

use std::sync::Arc;
use std::time::Duration;

use berth_cri_proto::v1::{StopContainerRequest, StopContainerResponse};
use tonic::{Code, Status};

use crate::runtime::Runtime;
use crate::teardown;

pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: StopContainerRequest,
) -> Result<StopContainerResponse, Status> {
    let container = match runtime.container(&request.container_id) {
        Err(status) if status.code() == Code::NotFound => return Ok(StopContainerResponse {}),
        other => other?,
    };
    let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
    teardown::stop_container(runtime, &container, grace).await?;
    Ok(StopContainerResponse {})
}
