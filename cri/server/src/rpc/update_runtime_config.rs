//! UpdateRuntimeConfig: the pod CIDR, which the network's own configuration holds here. Nothing to do.

use std::sync::Arc;

use berth_cri_proto::v1::{UpdateRuntimeConfigRequest, UpdateRuntimeConfigResponse};
use tonic::Status;

use crate::runtime::Runtime;

#[expect(clippy::unused_async, reason = "all calls have one form")]
pub(crate) async fn call(
    _: &Arc<Runtime>,
    _: UpdateRuntimeConfigRequest,
) -> Result<UpdateRuntimeConfigResponse, Status> {
    Ok(UpdateRuntimeConfigResponse {})
}
