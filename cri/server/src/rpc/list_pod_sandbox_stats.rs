//! ListPodSandboxStats: what all pods that are ready use, or those that a filter names.

use std::sync::Arc;

use berth_cri_proto::v1::{ListPodSandboxStatsRequest, ListPodSandboxStatsResponse};
use tonic::Status;

use super::selects;
use crate::runtime::Runtime;
use crate::tasks::blocking;

pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: ListPodSandboxStatsRequest,
) -> Result<ListPodSandboxStatsResponse, Status> {
    let wanted = request.filter.unwrap_or_default();
    let mut sandboxes = runtime.sandboxes();
    sandboxes.retain(|sandbox| {
        sandbox.id.starts_with(&wanted.id)
            && selects(&wanted.label_selector, &sandbox.config.labels)
            && sandbox.is_ready()
    });
    let work = Arc::clone(runtime);
    let stats = blocking(move || work.pods(sandboxes).iter().map(|pod| pod.stats(&work)).collect()).await?;
    Ok(ListPodSandboxStatsResponse { stats })
}
