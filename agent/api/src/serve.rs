//! Accepting connections: TLS, the client's certificate, then HTTP/1.1 or HTTP/2.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use berth_pods::Pods;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::access::{Authorizer, User};
use crate::router;

/// A client that does not finish its handshake within this time is dropped.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// After running out of descriptors, accepting rests this long.
const REST: Duration = Duration::from_millis(100);

/// Why the API is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener failed.
    #[error("listening: {0}")]
    Listen(#[from] io::Error),
}

/// Serves the API on `listener` until `stop` is cancelled. Streams in flight end with the process.
///
/// # Errors
/// When the listener itself fails; a client's failures concern that client only.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    pods: Arc<Pods>,
    authorizer: Arc<dyn Authorizer>,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let acceptor = TlsAcceptor::from(tls);
    let router = router::router(pods, authorizer);
    accept(&listener, &stop, |stream| {
        let (acceptor, router) = (acceptor.clone(), router.clone());
        tokio::spawn(async move {
            let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else {
                return;
            };
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let user = certificate.and_then(User::from_certificate);
            connection(stream, router, user).await;
        });
    })
    .await;
    Ok(())
}

/// Serves a router without TLS.
pub(crate) async fn plain(listener: TcpListener, router: Router, stop: CancellationToken) -> io::Result<()> {
    accept(&listener, &stop, |stream| {
        tokio::spawn(connection(stream, router.clone(), None));
    })
    .await;
    Ok(())
}

async fn accept(listener: &TcpListener, stop: &CancellationToken, mut each: impl FnMut(tokio::net::TcpStream)) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                each(stream);
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

async fn connection<S>(stream: S, router: Router, user: Option<User>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (router, user) = (router.clone(), user.clone());
        async move {
            let mut request = request.map(Body::new);
            if let Some(user) = user {
                request.extensions_mut().insert(user);
            }
            match router.oneshot(request).await {
                Ok(response) => Ok::<_, Infallible>(response),
            }
        }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    // Whatever ends a connection early is the client's affair.
    let _ = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}
