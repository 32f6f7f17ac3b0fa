//! Port-forward: a connection to a port of a sandbox: on its loopback, else on its own addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_cri_core::state::SandboxState;
use berth_stream::{Failure, Reader, Writer};
use berth_sys::netns;
use tokio::net::{TcpSocket, TcpStream};

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
    let SandboxState::Ready { ips, .. } = sandbox.state() else {
        return Err(Failure::new(format!("sandbox {:?} is not running", sandbox.id)));
    };
    let namespace = sandbox.has_network().then(|| runtime.places.namespace(&sandbox.id));
    let turn = sandbox.connecting.acquire().await.map_err(|error| Failure::new(error.to_string()))?;
    let connected = connect(namespace, &ips, port).await;
    drop(turn);
    let mut socket = connected.map_err(|error| {
        Failure::new(format!("failed to connect to localhost:{port} in pod {:?}: {error}", sandbox.id))
    })?;
    let mut client = tokio::io::join(connection.0, connection.1);
    // Each direction ends by itself. An error is one side's leaving, which the other is told by the end of its stream.
    let copied = tokio::io::copy_bidirectional(&mut client, &mut socket).await;
    if let Err(error) = copied {
        tracing::debug!(sandbox = sandbox.id, port, %error, "a forwarded connection broke");
    }
    Ok(())
}

/// Connects to localhost, by IPv4 first, and then to the pod's own addresses, for a server that listens on one of these
/// only (as containerd does since 2.2). The error is the first one: localhost's.
async fn connect(namespace: Option<PathBuf>, ips: &[String], port: u16) -> io::Result<TcpStream> {
    let local = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let own = ips.iter().filter_map(|ip| ip.parse().ok());
    let mut first = None;
    for address in local.into_iter().chain(own) {
        let connected = match socket(namespace.clone(), address).await {
            Ok(socket) => {
                let connecting = socket.connect(SocketAddr::new(address, port));
                tokio::time::timeout(PATIENCE, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            }
            Err(error) => Err(error),
        };
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => _ = first.get_or_insert(error),
        }
    }
    Err(first.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

/// A socket in a network namespace, where it stays wherever it is used. Only its making takes a thread: who connects may
/// have to wait.
async fn socket(namespace: Option<PathBuf>, address: IpAddr) -> io::Result<TcpSocket> {
    let make = move || if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    match namespace {
        None => make(),
        Some(path) => {
            let made = blocking(move || netns::open(&path)?.run(make)?);
            made.await.map_err(|status| io::Error::other(status.message().to_owned()))?
        }
    }
}
