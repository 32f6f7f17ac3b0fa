//! Exec: a URL where a client gets a command's streams.

use std::sync::Arc;

use berth_cri_proto::v1::{ExecRequest, ExecResponse};
use tonic::Status;

use super::streaming;
use crate::runtime::Runtime;
use crate::sessions;

pub(crate) async fn call(runtime: &Arc<Runtime>, request: ExecRequest) -> Result<ExecResponse, Status> {
    streaming::check(&request.container_id, request.tty, request.stdin, request.stdout, request.stderr)?;
    let container = runtime.container(&request.container_id)?;
    container.state().may_exec().map_err(|refusal| {
        Status::failed_precondition(format!("failed to exec in container {:?}: {refusal}", container.id))
    })?;
    if request.cmd.is_empty() {
        return Err(Status::invalid_argument("cmd: it is empty"));
    }
    let url = sessions::server(runtime).await?.exec(berth_stream::ExecRequest {
        container: container.id.clone(),
        command: request.cmd,
        tty: request.tty,
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
    });
    Ok(ExecResponse { url: url.map_err(|full| streaming::exhausted(&full))? })
}
