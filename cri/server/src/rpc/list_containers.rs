//! ListContainers.

use std::sync::Arc;

use berth_cri_proto::v1::{ListContainersRequest, ListContainersResponse};
use tonic::Status;

use super::{filter, selects};
use crate::runtime::Runtime;

#[expect(clippy::unused_async, reason = "all calls have one form")]
pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: ListContainersRequest,
) -> Result<ListContainersResponse, Status> {
    let wanted = request.filter.unwrap_or_default();
    let containers = runtime.containers();
    let id = match wanted.id.as_str() {
        "" => None,
        id => match filter::one(id, containers.iter().map(|container| container.id.as_str()))? {
            None => return Ok(ListContainersResponse::default()),
            found => found,
        },
    };
    let sandbox = match wanted.pod_sandbox_id.as_str() {
        "" => None,
        id => match filter::one(
            id,
            containers.iter().map(|container| container.sandbox.as_str()).collect::<std::collections::BTreeSet<_>>(),
        )? {
            None => return Ok(ListContainersResponse::default()),
            found => found,
        },
    };
    let containers = containers
        .iter()
        .filter(|container| id.is_none_or(|id| container.id == id))
        .filter(|container| sandbox.is_none_or(|sandbox| container.sandbox == sandbox))
        .map(|container| container.summary())
        .filter(|summary| wanted.state.as_ref().is_none_or(|state| state.state == summary.state))
        .filter(|summary| selects(&wanted.label_selector, &summary.labels))
        .collect();
    Ok(ListContainersResponse { containers })
}
