//! From a request for a session to the answer that upgrades it, and the session itself.
//!
//! Source: `k8s.io/streaming@v0.37.2:pkg/httpstream/httpstream.go#Handshake`, `spdy/upgrade.go`, `wsstream/conn.go`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

use crate::backend::{AttachRequest, Backend, ExecRequest, PortForwardRequest};
use crate::forward;
use crate::link::{Link, Pace, converse};
use crate::negotiate::{self, Agreed, Refusal};
use crate::remote::{self, Command};

/// What to answer, and what to run.
pub struct Answer {
    /// 101 when there is a session; a refusal with a reason in words otherwise.
    pub response: Response<String>,
    /// Runs the session once the answer was sent: await it in a task. Dropping it ends everything that belongs to it.
    pub session: Option<Session>,
}

/// A session's whole life.
pub type Session = Pin<Box<dyn Future<Output = ()> + Send>>;

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("response", &self.response).finish_non_exhaustive()
    }
}

/// Answers a client that wants to run a process. `http` must come from a connection that allows upgrades.
pub fn exec<B>(http: &mut Request<B>, request: ExecRequest, backend: Arc<dyn Backend>) -> Answer {
    command(http, Command::Exec(request), backend)
}

/// Answers a client that wants to join a container's streams.
pub fn attach<B>(http: &mut Request<B>, request: AttachRequest, backend: Arc<dyn Backend>) -> Answer {
    command(http, Command::Attach(request), backend)
}

fn command<B>(http: &mut Request<B>, command: Command, backend: Arc<dyn Backend>) -> Answer {
    let agreed = match negotiate::remote_command(http) {
        Ok(agreed) => agreed,
        Err(refusal) => return refuse(&refusal),
    };
    let link = Link::new(agreed.transport.protocol(), remote::STREAMS);
    let work = remote::run(link.clone(), (agreed.transport, agreed.version), command, backend, Pace::DEFAULT);
    accept(http, &agreed, link, work)
}

/// Answers a client that wants to reach ports of a sandbox.
pub fn port_forward<B>(http: &mut Request<B>, request: PortForwardRequest, backend: Arc<dyn Backend>) -> Answer {
    let agreed = match negotiate::port_forward(http, &request.ports) {
        Ok(agreed) => agreed,
        Err(refusal) => return refuse(&refusal),
    };
    let link = Link::new(agreed.transport.protocol(), forward::STREAMS);
    if agreed.transport.opens_streams() {
        let work = forward::pairs(link.clone(), request, backend, Pace::DEFAULT);
        accept(http, &agreed, link, work)
    } else {
        let work = forward::channels(link.clone(), request, backend);
        accept(http, &agreed, link, work)
    }
}

fn accept<B>(
    http: &mut Request<B>,
    agreed: &Agreed,
    link: Link,
    work: impl Future<Output = ()> + Send + 'static,
) -> Answer {
    let upgrade = hyper::upgrade::on(http);
    let session = async move {
        match upgrade.await {
            Ok(connection) => converse(link, TokioIo::new(connection), Pace::DEFAULT, work).await,
            Err(error) => tracing::debug!(%error, "a streaming client left before its session began"),
        }
    };
    let mut response = Response::new(String::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().extend(agreed.headers.clone());
    Answer { response, session: Some(Box::pin(session)) }
}

fn refuse(refusal: &Refusal) -> Answer {
    tracing::debug!(status = %refusal.status, reason = refusal.reason, "a streaming client was refused");
    let mut response = Response::new(format!("{}\n", refusal.reason));
    *response.status_mut() = refusal.status;
    response.headers_mut().extend((*refusal.headers).clone());
    Answer { response, session: None }
}
