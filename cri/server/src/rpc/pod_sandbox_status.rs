//! PodSandboxStatus. Its verbose part has containerd's keys, which tools read (`crictl inspectp`).

use std::collections::HashMap;
use std::sync::Arc;

use berth_cri_proto::v1::{PodSandboxStatusRequest, PodSandboxStatusResponse};
use tonic::Status;

use crate::inspect;
use crate::runtime::Runtime;

#[expect(clippy::unused_async, reason = "all calls have one form")]
pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: PodSandboxStatusRequest,
) -> Result<PodSandboxStatusResponse, Status> {
    let sandbox = runtime.sandbox(&request.pod_sandbox_id)?;
    let mut info = HashMap::new();
    if request.verbose {
        info.insert("info".to_owned(), inspect::sandbox(runtime, &sandbox).to_string());
    }
    Ok(PodSandboxStatusResponse {
        status: Some(sandbox.status()),
        info,
        containers_statuses: runtime.containers_of(&sandbox.id).iter().map(|container| container.status()).collect(),
        timestamp: berth_sys::process::now(),
    })
}
