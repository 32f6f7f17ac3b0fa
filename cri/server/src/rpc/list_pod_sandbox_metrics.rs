//! ListPodSandboxMetrics: cAdvisor's metrics of all pods that are ready.

use std::sync::Arc;

use berth_cri_proto::v1::{ListPodSandboxMetricsRequest, ListPodSandboxMetricsResponse};
use tonic::Status;

use crate::metrics;
use crate::runtime::Runtime;
use crate::tasks::blocking;

pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    _: ListPodSandboxMetricsRequest,
) -> Result<ListPodSandboxMetricsResponse, Status> {
    let mut sandboxes = runtime.sandboxes();
    sandboxes.retain(|sandbox| sandbox.is_ready());
    let work = Arc::clone(runtime);
    let pods = blocking(move || work.pods(sandboxes).iter().map(|pod| metrics::of(&work, pod)).collect()).await?;
    Ok(ListPodSandboxMetricsResponse { pod_metrics: pods })
}
