//! ContainerStatus.

use std::collections::HashMap;
use std::sync::Arc;

use berth_cri_core::state::ContainerState;
use berth_cri_proto::v1::{ContainerStatusRequest, ContainerStatusResponse};
use serde_json::json;
use tonic::Status;

use crate::container::Container;
use crate::runtime::Runtime;

#[expect(clippy::unused_async, reason = "all calls have one form")]
pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: ContainerStatusRequest,
) -> Result<ContainerStatusResponse, Status> {
    let container = runtime.container(&request.container_id)?;
    Ok(ContainerStatusResponse {
        status: Some(container.status()),
        info: if request.verbose { info(&container) } else { HashMap::new() },
    })
}

fn info(container: &Container) -> HashMap<String, String> {
    let pid = match container.state() {
        ContainerState::Running { pid, .. } => pid,
        ContainerState::Created | ContainerState::Exited { .. } => 0,
    };
    let info = json!({ "pid": pid, "sandboxID": container.sandbox, "cgroupsPath": container.record.cgroup });
    HashMap::from([("info".to_owned(), info.to_string())])
}
