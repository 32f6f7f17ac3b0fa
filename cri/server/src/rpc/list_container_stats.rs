//! ListContainerStats: what all containers use, or those that a filter names.

use std::sync::Arc;

use berth_cri_proto::v1::{ListContainerStatsRequest, ListContainerStatsResponse};
use tonic::Status;

use super::selects;
use crate::runtime::Runtime;
use crate::stats;
use crate::tasks::blocking;

pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: ListContainerStatsRequest,
) -> Result<ListContainerStatsResponse, Status> {
    let wanted = request.filter.unwrap_or_default();
    let work = Arc::clone(runtime);
    let stats = blocking(move || {
        let containers: Vec<_> = work
            .containers()
            .into_iter()
            .filter(|container| wanted.id.is_empty() || container.id.starts_with(&wanted.id))
            .filter(|container| {
                wanted.pod_sandbox_id.is_empty() || container.sandbox.starts_with(&wanted.pod_sandbox_id)
            })
            .filter(|container| selects(&wanted.label_selector, &container.config().labels))
            .filter(|container| container.is_running())
            .collect();
        containers.iter().for_each(|container| container.measure(&work));
        containers.iter().map(|container| stats::container(&work, container)).collect()
    });
    Ok(ListContainerStatsResponse { stats: stats.await? })
}
