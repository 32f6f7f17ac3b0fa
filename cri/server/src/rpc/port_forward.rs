//! PortForward: a URL where a client gets connections to a sandbox's ports.

use std::sync::Arc;

use berth_cri_proto::v1::{PortForwardRequest, PortForwardResponse};
use tonic::Status;

use super::streaming;
use crate::runtime::Runtime;
use crate::sessions;

pub(crate) async fn call(runtime: &Arc<Runtime>, request: PortForwardRequest) -> Result<PortForwardResponse, Status> {
    if request.pod_sandbox_id.is_empty() {
        return Err(Status::invalid_argument("pod_sandbox_id: it is missing"));
    }
    let port = |port: &i32| {
        let known = u16::try_from(*port).ok().filter(|port| *port > 0);
        known.ok_or_else(|| Status::invalid_argument(format!("port: {port} is not between 1 and 65535")))
    };
    let ports = request.port.iter().map(port).collect::<Result<Vec<u16>, _>>()?;
    let sandbox = runtime.sandbox(&request.pod_sandbox_id)?;
    if !sandbox.is_ready() {
        return Err(Status::failed_precondition(format!("sandbox {:?} is not running", sandbox.id)));
    }
    let request = berth_stream::PortForwardRequest { sandbox: sandbox.id.clone(), ports };
    let url = sessions::server(runtime).await?.port_forward(request);
    Ok(PortForwardResponse { url: url.map_err(|full| streaming::exhausted(&full))? })
}
