//! `/healthz` on loopback, for liveness checks of the agent itself.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::routing::any;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves `/healthz` in plain HTTP at `address` until `stop` is cancelled. Every method answers `ok`
/// (`kubernetes@v1.37.2:pkg/kubelet/kubelet.go`: the node tests ask by HEAD).
///
/// # Errors
/// When the address can't be bound, or the server fails.
pub async fn serve_health(address: SocketAddr, stop: CancellationToken) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let router = Router::new().route("/healthz", any(|| async { "ok" }));
    crate::serve::plain(listener, router, stop).await
}
