//! StreamPodSandboxStats: ListPodSandboxStats in parts.

use std::sync::Arc;

use berth_cri_proto::v1::{ListPodSandboxStatsRequest, StreamPodSandboxStatsRequest, StreamPodSandboxStatsResponse};
use futures_util::stream::BoxStream;
use tonic::Status;

use super::{list_pod_sandbox_stats, parts};
use crate::runtime::Runtime;

pub(crate) fn call(
    runtime: &Arc<Runtime>,
    request: StreamPodSandboxStatsRequest,
) -> Result<BoxStream<'static, Result<StreamPodSandboxStatsResponse, Status>>, Status> {
    let list = move |runtime: Arc<Runtime>| async move {
        let list = ListPodSandboxStatsRequest { filter: request.filter };
        Ok(list_pod_sandbox_stats::call(&runtime, list).await?.stats)
    };
    Ok(parts::parts(runtime, list, |pod_sandbox_stats| StreamPodSandboxStatsResponse { pod_sandbox_stats }))
}
