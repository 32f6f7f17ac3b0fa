//! PodSandboxStatus.

use std::collections::HashMap;
use std::sync::Arc;

use berth_cri_core::state::SandboxState;
use berth_cri_proto::v1::{PodSandboxStatusRequest, PodSandboxStatusResponse};
use serde_json::json;
use tonic::Status;

use crate::places::text;
use crate::runtime::Runtime;
use crate::sandbox::Sandbox;

#[expect(clippy::unused_async, reason = "all calls have one form")]
pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: PodSandboxStatusRequest,
) -> Result<PodSandboxStatusResponse, Status> {
    let sandbox = runtime.sandbox(&request.pod_sandbox_id)?;
    Ok(PodSandboxStatusResponse {
        status: Some(sandbox.status()),
        info: if request.verbose { info(runtime, &sandbox) } else { HashMap::new() },
        containers_statuses: runtime.containers_of(&sandbox.id).iter().map(|container| container.status()).collect(),
        timestamp: berth_sys::process::now(),
    })
}

fn info(runtime: &Runtime, sandbox: &Sandbox) -> HashMap<String, String> {
    let (pid, reason) = match sandbox.state() {
        SandboxState::Ready { shim, .. } => (shim, String::new()),
        SandboxState::NotReady { reason, .. } => (0, reason),
    };
    let info = json!({
        "pid": pid,
        "reason": reason,
        "processStatus": if pid == 0 { "deleted" } else { "running" },
        "netNamespace": text(&runtime.places.namespace(&sandbox.id)),
        "cgroupParent": sandbox.plan.cgroup_parent,
        "runtimeHandler": sandbox.handler,
    });
    HashMap::from([("info".to_owned(), info.to_string())])
}
