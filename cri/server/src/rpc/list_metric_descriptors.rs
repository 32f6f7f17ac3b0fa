//! ListMetricDescriptors: which metrics ListPodSandboxMetrics gives.

use std::sync::Arc;

use berth_cri_proto::v1::{ListMetricDescriptorsRequest, ListMetricDescriptorsResponse};
use tonic::Status;

use crate::metrics;
use crate::runtime::Runtime;

#[expect(clippy::unused_async, reason = "all calls have one form")]
pub(crate) async fn call(
    _: &Arc<Runtime>,
    _: ListMetricDescriptorsRequest,
) -> Result<ListMetricDescriptorsResponse, Status> {
    Ok(ListMetricDescriptorsResponse { descriptors: metrics::descriptors() })
}
