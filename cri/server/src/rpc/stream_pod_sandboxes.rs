//! StreamPodSandboxes: ListPodSandbox in parts.

use std::sync::Arc;

use berth_cri_proto::v1::{ListPodSandboxRequest, StreamPodSandboxesRequest, StreamPodSandboxesResponse};
use futures_util::stream::BoxStream;
use tonic::Status;

use super::{list_pod_sandbox, parts};
use crate::runtime::Runtime;

pub(crate) fn call(
    runtime: &Arc<Runtime>,
    request: StreamPodSandboxesRequest,
) -> Result<BoxStream<'static, Result<StreamPodSandboxesResponse, Status>>, Status> {
    let list = move |runtime: Arc<Runtime>| async move {
        let list = ListPodSandboxRequest { filter: request.filter };
        Ok(list_pod_sandbox::call(&runtime, list).await?.items)
    };
    Ok(parts::parts(runtime, list, |pod_sandboxes| StreamPodSandboxesResponse { pod_sandboxes }))
}
