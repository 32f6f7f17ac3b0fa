//! StreamPodSandboxMetrics: ListPodSandboxMetrics in parts.

use std::sync::Arc;

use berth_cri_proto::v1::{
    ListPodSandboxMetricsRequest, StreamPodSandboxMetricsRequest, StreamPodSandboxMetricsResponse,
};
use futures_util::stream::BoxStream;
use tonic::Status;

use super::{list_pod_sandbox_metrics, parts};
use crate::runtime::Runtime;

pub(crate) fn call(
    runtime: &Arc<Runtime>,
    _: StreamPodSandboxMetricsRequest,
) -> Result<BoxStream<'static, Result<StreamPodSandboxMetricsResponse, Status>>, Status> {
    let list = move |runtime: Arc<Runtime>| async move {
        Ok(list_pod_sandbox_metrics::call(&runtime, ListPodSandboxMetricsRequest {}).await?.pod_metrics)
    };
    Ok(parts::parts(runtime, list, |pod_sandbox_metrics| StreamPodSandboxMetricsResponse { pod_sandbox_metrics }))
}
