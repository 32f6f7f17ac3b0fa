//! Attach: a URL where a client gets a container's streams.

use std::sync::Arc;

use berth_cri_proto::v1::{AttachRequest, AttachResponse};
use tonic::Status;

use super::streaming;
use crate::runtime::Runtime;
use crate::sessions;

pub(crate) async fn call(runtime: &Arc<Runtime>, request: AttachRequest) -> Result<AttachResponse, Status> {
    streaming::check(&request.container_id, request.tty, request.stdin, request.stdout, request.stderr)?;
    let container = runtime.container(&request.container_id)?;
    container.state().may_exec().map_err(|refusal| {
        Status::failed_precondition(format!("failed to attach to container {:?}: {refusal}", container.id))
    })?;
    let url = sessions::server(runtime).await?.attach(berth_stream::AttachRequest {
        container: container.id.clone(),
        tty: request.tty,
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
    });
    Ok(AttachResponse { url: url.map_err(|full| streaming::exhausted(&full))? })
}
