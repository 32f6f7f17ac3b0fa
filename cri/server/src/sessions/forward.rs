//! Port-forward: a connection to a port on a sandbox's loopback.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use berth_cri_core::compile::NamespaceScope;
use berth_stream::{Failure, Reader, Writer};
use berth_sys::netns;

use super::failure;
use crate::runtime::Runtime;
use crate::tasks::blocking;

/// How long a port of the same machine may take to accept.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn run(
    runtime: &Arc<Runtime>,
    sandbox: &str,
    port: u16,
    connection: (Reader, Writer),
) -> Result<(), Failure> {
    let sandbox = runtime.sandbox(sandbox).map_err(failure)?;
    if !sandbox.is_ready() {
        return Err(Failure::new(format!("sandbox {:?} is not running", sandbox.id)));
    }
    let own = sandbox.plan.network == NamespaceScope::Pod;
    let namespace = own.then(|| runtime.places.namespace(&sandbox.id));
    let connected = blocking(move || match namespace {
        // A thread that enters the namespace and ends there; the socket stays in it wherever it is used.
        Some(path) => netns::open(&path)?.run(|| connect(port))?,
        None => connect(port),
    });
    let socket = connected.await.map_err(failure)?;
    let refused = |error: io::Error| {
        Failure::new(format!("failed to connect to localhost:{port} in pod {:?}: {error}", sandbox.id))
    };
    let mut socket = socket.and_then(tokio::net::TcpStream::from_std).map_err(refused)?;
    let mut client = tokio::io::join(connection.0, connection.1);
    // Each direction ends by itself. An error is one side's leaving, which the other is told by the end of its stream.
    let copied = tokio::io::copy_bidirectional(&mut client, &mut socket).await;
    if let Err(error) = copied {
        tracing::debug!(sandbox = sandbox.id, port, %error, "a forwarded connection broke");
    }
    Ok(())
}

/// Connects to localhost as the calling thread's network namespace has it, by IPv4 first.
fn connect(port: u16) -> io::Result<TcpStream> {
    let to = |address: IpAddr| TcpStream::connect_timeout(&SocketAddr::new(address, port), PATIENCE);
    let socket = to(Ipv4Addr::LOCALHOST.into()).or_else(|first| to(Ipv6Addr::LOCALHOST.into()).map_err(|_| first))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
