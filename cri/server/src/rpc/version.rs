//! Version: who is asked.

use std::sync::Arc;

use berth_cri_proto::v1::{VersionRequest, VersionResponse};
use tonic::Status;

use crate::runtime::Runtime;

#[expect(clippy::unused_async, reason = "all calls have one form")]
pub(crate) async fn call(_: &Arc<Runtime>, _: VersionRequest) -> Result<VersionResponse, Status> {
    Ok(VersionResponse {
        // Of the kubelet's runtime API; it has been this since 2016, and clients compare it.
        version: "0.1.0".to_owned(),
        runtime_name: "berth".to_owned(),
        runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
        runtime_api_version: "v1".to_owned(),
    })
}
