//! ContainerStats: what one container uses.

use std::sync::Arc;

use berth_cri_proto::v1::{ContainerStatsRequest, ContainerStatsResponse};
use tonic::Status;

use crate::runtime::Runtime;
use crate::stats;
use crate::tasks::blocking;

pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: ContainerStatsRequest,
) -> Result<ContainerStatsResponse, Status> {
    let container = runtime.container(&request.container_id)?;
    let work = Arc::clone(runtime);
    let stats = blocking(move || stats::container(&work, &container)).await?;
    Ok(ContainerStatsResponse { stats: Some(stats) })
}
