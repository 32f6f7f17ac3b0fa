//! A client whose way to the API server can be changed under its users.
//!
//! Everyone in the agent holds the same [`Client`]. What it does with a request is decided here: it goes through the
//! connections of the present credentials, or fails when there are none. When the credentials change, the old ones'
//! connections are dropped: idle ones at once, a request's when it is answered, and a watch ends as if the server had ended
//! it, so that it is resumed where it was, through the new ones. (The kubelet cuts them all,
//! `kubernetes@v1.37.2:pkg/kubelet/certificate/transport.go`, and fails what is under way.)

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, StreamBody};
use kube::client::Body;
use kube::{Client, Error};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::{BoxError, Service};

/// How long the answer to a request that is no watch may take to begin. A server that was cut off does not say so, and
/// the kernel only gives up after a quarter of an hour.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a request was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stopped {
    #[error("no credentials for the API server: {0}")]
    Without(String),
    #[error("the API server did not answer within {} s", PATIENCE.as_secs())]
    Silent,
}

#[derive(Debug)]
enum Way {
    None(String),
    Through(Generation),
}

/// Connections of one set of credentials.
struct Generation {
    client: Client,
    /// Cancelled when it is replaced.
    ended: CancellationToken,
    _guard: DropGuard,
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Generation")
    }
}

/// The hand that changes the way.
#[derive(Debug, Clone)]
pub(crate) struct Switch(Arc<Mutex<Way>>);

/// A client without a way yet, and the hand to give it one. To be called on a runtime.
pub(crate) fn client(reason: &str) -> (Client, Switch) {
    let way = Arc::new(Mutex::new(Way::None(reason.to_owned())));
    (Client::new(Door(Arc::clone(&way)), "default"), Switch(way))
}

impl Switch {
    /// From now on requests go through `client`.
    pub(crate) fn set(&self, client: Client) {
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        self.put(Way::Through(Generation { client, ended, _guard: guard }));
    }

    /// From now on requests fail.
    pub(crate) fn unset(&self, reason: &str) {
        self.put(Way::None(reason.to_owned()));
    }

    fn put(&self, way: Way) {
        let old = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), way);
        // Outside the lock: it ends the old one's watches.
        drop(old);
    }
}

/// What the client takes for a connection pool.
struct Door(Arc<Mutex<Way>>);

impl Service<Request<Body>> for Door {
    type Response = Response<UnsyncBoxBody<Bytes, Error>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (client, ended) = match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Way::Through(generation) => (generation.client.clone(), generation.ended.clone()),
            Way::None(reason) => {
                let stopped = Stopped::Without(reason.clone());
                return Box::pin(async move { Err(stopped.into()) });
            }
        };
        let is_watch = is_watch(&request);
        Box::pin(async move {
            if is_watch {
                let response = tokio::select! {
                    response = client.send(request) => response?,
                    () = ended.cancelled() => return Err(ended_early().into()),
                };
                return Ok(response.map(|body| until(body, ended)));
            }
            let answer = timeout(PATIENCE, client.send(request)).await;
            Ok(answer.map_err(|_| Stopped::Silent)??.map(BodyExt::boxed_unsync))
        })
    }
}

/// `body` until `ended`, then nothing more: a watch that ended, as they all do some time.
fn until(body: Body, ended: CancellationToken) -> UnsyncBoxBody<Bytes, Error> {
    StreamBody::new(BodyStream::new(body).take_until(ended.cancelled_owned())).boxed_unsync()
}

fn ended_early() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the credentials were renewed")
}

/// Whether the answer goes on until somebody ends it.
fn is_watch(request: &Request<Body>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::{AsyncReadExt, stream};
    use hyper::body::Frame;

    use super::*;

    /// A server of one generation: answers a watch with its number and then nothing more, anything else with its number.
    fn server(number: u32, asked: &Arc<AtomicU32>) -> Client {
        let asked = Arc::clone(asked);
        let service = tower::service_fn(move |request: Request<Body>| {
            asked.fetch_add(1, Ordering::Relaxed);
            let first = stream::iter([Ok::<_, Error>(Frame::data(Bytes::from(number.to_string())))]);
            let body: UnsyncBoxBody<Bytes, Error> = if is_watch(&request) {
                StreamBody::new(first.chain(stream::pending())).boxed_unsync()
            } else {
                StreamBody::new(first).boxed_unsync()
            };
            async move { Ok::<_, BoxError>(Response::new(body)) }
        });
        Client::new(service, "default")
    }

    fn get(path: &str) -> Request<Vec<u8>> {
        Request::get(path).body(Vec::new()).expect("a request")
    }

    #[tokio::test]
    async fn a_switch_ends_watches_cleanly_and_moves_requests() {
        let (client, switch) = client("not yet");
        let error = client.request_text(get("/api")).await.expect_err("no way yet");
        assert!(crate::connect::causes(&error).contains("no credentials for the API server: not yet"), "{error:?}");

        let asked = Arc::new(AtomicU32::new(0));
        switch.set(server(1, &asked));
        assert_eq!(client.request_text(get("/api")).await.expect("answers"), "1");
        let mut watch = std::pin::pin!(client.request_stream(get("/api?watch=true")).await.expect("begins"));
        let mut first = [0];
        watch.read_exact(&mut first).await.expect("reads");
        assert_eq!(&first, b"1");

        switch.set(server(2, &asked));
        let mut rest = Vec::new();
        watch.read_to_end(&mut rest).await.expect("an end, not an error");
        assert!(rest.is_empty());
        assert_eq!(client.request_text(get("/api")).await.expect("answers"), "2");
        assert_eq!(asked.load(Ordering::Relaxed), 3);

        switch.unset("it ended");
        let error = client.request_text(get("/api")).await.expect_err("no way any more");
        assert!(crate::connect::causes(&error).contains("it ended"), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_given_up_but_not_a_silent_watch() {
        let (client, switch) = client("not yet");
        let service = tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, BoxError>>());
        switch.set(Client::new(service, "default"));
        let error = client.request_text(get("/api")).await.expect_err("silent");
        assert!(crate::connect::causes(&error).contains("did not answer within 30 s"), "{error:?}");
        let watch = timeout(PATIENCE * 10, client.request_text(get("/api?limit=1&watch=true"))).await;
        assert!(watch.is_err(), "a watch has no limit");
    }
}
