//! Listeners and connections.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::auth::{Authenticator, Authorizer, Gate, User};
use crate::tls::{Identity, Tls};
use crate::{Host, routes};

/// How long a client may take for its handshake, and for a request's head.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections at once.
const CONNECTIONS: usize = 1024;

/// How the API is served.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// The certificate that it shows.
    pub identity: Identity,
    /// Whether TLS 1.2 is refused (`tlsMinVersion: VersionTLS13`).
    pub only_tls13: bool,
    /// Clients with a certificate of these authorities (PEM) are known. Read again when it changes.
    pub client_ca_file: Option<PathBuf>,
    /// Who knows whose bearer tokens are; without it tokens count for nothing.
    pub tokens: Option<Arc<dyn Authenticator>>,
    /// Whether other clients are `system:anonymous` rather than refused.
    pub anonymous: bool,
}

/// Why the API can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The address can't be had.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A certificate or key can't be used.
    #[error("{}: {source}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Certificate and key do not make a server.
    #[error("the serving certificate can't be used: {0}")]
    Tls(rustls::Error),
    /// No certificate could be made.
    #[error("no self-signed certificate could be made: {0}")]
    SelfSigned(String),
}

/// Whose certificate the connection has; in every request's extensions.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) Option<User>);

/// The HTTPS API, listening.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    tls: Tls,
    router: Router,
}

impl Server {
    /// Listens; calls are answered once [`Server::run`] runs.
    ///
    /// # Errors
    /// An address, certificate or key that can't be used.
    pub async fn bind(
        settings: &Settings,
        host: Arc<dyn Host>,
        authorizer: Arc<dyn Authorizer>,
    ) -> Result<Self, ApiError> {
        let tls = Tls::open(settings.identity.clone(), settings.client_ca_file.clone(), settings.only_tls13)?;
        let listener = listen(settings.address).await?;
        let gate = Gate::new(authorizer, settings.tokens.clone(), settings.anonymous);
        let router = routes::router(host, Arc::new(gate));
        Ok(Self { listener, tls, router })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves, and follows its certificates; never returns.
    pub async fn run(self) -> Infallible {
        let Self { listener, tls, router } = self;
        let current = tls.current();
        let serve = accept(&listener, move |stream| {
            // What is in force when the connection comes.
            let (acceptor, router) = (TlsAcceptor::from(current.borrow().clone()), router.clone());
            async move {
                let Ok(Ok(stream)) = timeout(PATIENCE, acceptor.accept(stream)).await else { return };
                let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let user = certificate.and_then(|der| User::of_certificate(der));
                serve(stream, router.layer(Extension(Caller(user)))).await;
            }
        });
        tokio::join!(serve, tls.follow()).0
    }
}

/// Serves `/healthz` in plain HTTP (HEAD too) at `address`; never returns once it listens.
///
/// # Errors
/// The address can't be had.
pub async fn healthz(address: SocketAddr) -> Result<Infallible, ApiError> {
    let listener = listen(address).await?;
    let router = routes::healthz();
    Ok(accept(&listener, move |stream| serve(stream, router.clone())).await)
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ApiError> {
    TcpListener::bind(address).await.map_err(|source| ApiError::Listen { address, source })
}

async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: &TcpListener,
    mut handle: impl FnMut(TcpStream) -> F,
) -> Infallible {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { continue };
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                let handled = handle(stream);
                tokio::spawn(async move {
                    handled.await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: let some be closed.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended early");
    }
}
