//! ListPodSandbox.

use std::sync::Arc;

use berth_cri_proto::v1::{ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox};
use tonic::Status;

use super::{filter, selects};
use crate::runtime::Runtime;

#[expect(clippy::unused_async, reason = "all calls have one form")]
pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: ListPodSandboxRequest,
) -> Result<ListPodSandboxResponse, Status> {
    let wanted = request.filter.unwrap_or_default();
    let sandboxes = runtime.sandboxes();
    let id = match wanted.id.as_str() {
        "" => None,
        id => match filter::one(id, sandboxes.iter().map(|sandbox| sandbox.id.as_str()))? {
            None => return Ok(ListPodSandboxResponse::default()),
            found => found,
        },
    };
    let items = sandboxes
        .iter()
        .filter(|sandbox| id.is_none_or(|id| sandbox.id == id))
        .map(|sandbox| sandbox.status())
        .filter(|status| wanted.state.as_ref().is_none_or(|state| state.state == status.state))
        .filter(|status| selects(&wanted.label_selector, &status.labels))
        .map(|status| PodSandbox {
            id: status.id,
            metadata: status.metadata,
            state: status.state,
            created_at: status.created_at,
            labels: status.labels,
            annotations: status.annotations,
            runtime_handler: status.runtime_handler,
        })
        .collect();
    Ok(ListPodSandboxResponse { items })
}
