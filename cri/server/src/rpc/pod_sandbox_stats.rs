//! PodSandboxStats: what one pod uses, with its containers that run.

use std::sync::Arc;

use berth_cri_proto::v1::{PodSandboxStatsRequest, PodSandboxStatsResponse};
use tonic::Status;

use crate::runtime::Runtime;
use crate::tasks::blocking;

pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: PodSandboxStatsRequest,
) -> Result<PodSandboxStatsResponse, Status> {
    let sandbox = runtime.sandbox(&request.pod_sandbox_id)?;
    let work = Arc::clone(runtime);
    let stats = blocking(move || work.pods(vec![sandbox]).first().map(|pod| pod.stats(&work))).await?;
    Ok(PodSandboxStatsResponse { stats })
}
