//! The listener whose URLs a CRI runtime answers with.

mod tokens;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::answer::{self, Answer, Session};
use crate::backend::{AttachRequest, Backend, ExecRequest, PortForwardRequest};
use tokens::Tokens;

/// As many connections at a time; further ones wait to be accepted.
const CONNECTIONS: usize = 4096;
/// For a client to send its request's head.
const HEAD: Duration = Duration::from_secs(30);
const HEAD_BYTES: usize = 16 * 1024;
/// Before accepting again after an error, such as that there are no descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// As many sessions as may wait for their client wait already (`ResourceExhausted` for gRPC).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("1000 streaming requests wait for their client already; one is given up after a minute: try again then")]
pub struct Full;

/// The streaming server: a listener, and the sessions that were asked for. Dropping it ends them all.
pub struct Server {
    address: SocketAddr,
    table: Arc<Table>,
    _listening: AbortOnDropHandle<()>,
}

struct Table {
    backend: Arc<dyn Backend>,
    waiting: Mutex<Tokens<Asked>>,
}

#[derive(Debug)]
enum Asked {
    Exec(ExecRequest),
    Attach(AttachRequest),
    PortForward(PortForwardRequest),
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Listens on `address` (`127.0.0.1:0` unless clients are on other machines) and serves in the background of the
    /// current tokio runtime.
    ///
    /// # Errors
    /// The address can't be listened on.
    pub async fn start(address: SocketAddr, backend: Arc<dyn Backend>) -> io::Result<Server> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let table = Arc::new(Table { backend, waiting: Mutex::new(Tokens::new()) });
        let listening = AbortOnDropHandle::new(tokio::spawn(listen(listener, table.clone())));
        Ok(Server { address, table, _listening: listening })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of an exec session: good once, for a minute.
    ///
    /// # Errors
    /// Too many wait already.
    pub fn exec(&self, request: ExecRequest) -> Result<String, Full> {
        self.ask("exec", Asked::Exec(request))
    }

    /// The URL of an attach session: good once, for a minute.
    ///
    /// # Errors
    /// Too many wait already.
    pub fn attach(&self, request: AttachRequest) -> Result<String, Full> {
        self.ask("attach", Asked::Attach(request))
    }

    /// The URL of a port-forward session: good once, for a minute.
    ///
    /// # Errors
    /// Too many wait already.
    pub fn port_forward(&self, request: PortForwardRequest) -> Result<String, Full> {
        self.ask("portforward", Asked::PortForward(request))
    }

    fn ask(&self, kind: &str, asked: Asked) -> Result<String, Full> {
        let token = self.table.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(asked)?;
        Ok(format!("http://{}/{kind}/{token}", self.address))
    }
}

/// Accepts until it is dropped, and with it every connection.
async fn listen(listener: TcpListener, table: Arc<Table>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, table.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the streaming server can't accept a connection");
                    sleep(PAUSE).await;
                }
            },
            Some(_ended) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// One connection: a request, and the session that comes of it.
async fn serve(stream: TcpStream, table: Arc<Table>) {
    // Keystrokes and their echo are single bytes.
    let _ = stream.set_nodelay(true);
    let session: Mutex<Option<Session>> = Mutex::new(None);
    let service = service_fn(|http| {
        let Answer { mut response, session: begun } = table.answer(http);
        // Not hyper's own switch for it, which puts "close" beside "Upgrade" in a session's answer.
        if begun.is_none() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        *session.lock().unwrap_or_else(PoisonError::into_inner) = begun;
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
        tracing::debug!(%error, "a streaming client's connection failed");
    }
    let begun = session.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(session) = begun {
        session.await;
    }
}

impl Table {
    fn answer(&self, mut http: Request<Incoming>) -> Answer {
        if http.method() != Method::GET && http.method() != Method::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "a streaming session begins with GET or POST\n");
        }
        match self.asked(http.uri().path()) {
            Some(Asked::Exec(request)) => answer::exec(&mut http, request, self.backend.clone()),
            Some(Asked::Attach(request)) => answer::attach(&mut http, request, self.backend.clone()),
            Some(Asked::PortForward(request)) => answer::port_forward(&mut http, request, self.backend.clone()),
            None => plain(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    /// What the path's token stands for; that is used up even when the path is of another kind.
    fn asked(&self, path: &str) -> Option<Asked> {
        let (kind, token) = path.strip_prefix('/')?.split_once('/')?;
        let asked = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take(token)?;
        let matches = match asked {
            Asked::Exec(_) => kind == "exec",
            Asked::Attach(_) => kind == "attach",
            Asked::PortForward(_) => kind == "portforward",
        };
        matches.then_some(asked)
    }
}

fn plain(status: StatusCode, text: &str) -> Answer {
    let mut response = Response::new(text.to_owned());
    *response.status_mut() = status;
    Answer { response, session: None }
}
