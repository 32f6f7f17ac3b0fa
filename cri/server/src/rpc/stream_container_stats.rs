//! StreamContainerStats: ListContainerStats in parts.

use std::sync::Arc;

use berth_cri_proto::v1::{ListContainerStatsRequest, StreamContainerStatsRequest, StreamContainerStatsResponse};
use futures_util::stream::BoxStream;
use tonic::Status;

use super::{list_container_stats, parts};
use crate::runtime::Runtime;

pub(crate) fn call(
    runtime: &Arc<Runtime>,
    request: StreamContainerStatsRequest,
) -> Result<BoxStream<'static, Result<StreamContainerStatsResponse, Status>>, Status> {
    let list = move |runtime: Arc<Runtime>| async move {
        let list = ListContainerStatsRequest { filter: request.filter };
        Ok(list_container_stats::call(&runtime, list).await?.stats)
    };
    Ok(parts::parts(runtime, list, |container_stats| StreamContainerStatsResponse { container_stats }))
}
