use std::convert::Infallible;

use ::http::{Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};

use super::servers;
use super::*;
use crate::grpc::{HealthCheckRequest, HealthCheckResponse};

/// A health service that knows "" (serving), "sick" (not serving), and nothing else.
async fn answer(
    request: Request<Incoming>,
) -> Result<Response<http_body_util::combinators::BoxBody<Bytes, Infallible>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let asked = HealthCheckRequest::decode(body.get(5..).unwrap_or_default()).unwrap_or_default();
    let mut reply = Response::builder().header("content-type", "application/grpc");
    let status = match (path.as_str(), asked.service.as_str()) {
        ("/grpc.health.v1.Health/Check", "") => 1,
        ("/grpc.health.v1.Health/Check", "sick") => 2,
        ("/grpc.health.v1.Health/Check", "old") => {
            reply = reply.header("grpc-status", "12").header("grpc-message", "unknown service");
            return Ok(reply.body(Full::default().boxed()).expect("an answer"));
        }
        _ => {
            reply = reply.header("grpc-status", "5").header("grpc-message", "unknown service");
            return Ok(reply.body(Full::default().boxed()).expect("an answer"));
        }
    };
    let message = HealthCheckResponse { status }.encode_to_vec();
    let mut framed = vec![0, 0, 0, 0, u8::try_from(message.len()).expect("short")];
    framed.extend(message);
    let mut trailers = ::http::HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().expect("a value"));
    let body = Full::new(Bytes::from(framed)).with_trailers(std::future::ready(Some(Ok(trailers))));
    Ok(reply.body(body.boxed()).expect("an answer"))
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) {
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = server.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
}

async fn start(tls: bool) -> u16 {
    let (listener, port) = servers::listen().await;
    let acceptor = servers::acceptor(&[b"h2"]);
    tokio::spawn(async move {
        loop {
            let stream = servers::accept(&listener).await;
            if !tls {
                tokio::spawn(serve(stream));
            } else if let Ok(stream) = acceptor.accept(stream).await {
                tokio::spawn(serve(stream));
            }
        }
    });
    port
}

#[tokio::test]
async fn only_serving_is_well() {
    let port = start(false).await;
    let ask = |service: &str| run(json!({"grpc": {"port": port, "service": service}, "timeoutSeconds": 5}));
    assert_eq!(ask("").await, Outcome::Success);
    assert_eq!(failure(ask("sick").await), "service unhealthy (responded with \"NOT_SERVING\")");
    let words = failure(ask("other").await);
    assert_eq!(words, "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service");
    let words = failure(ask("old").await);
    assert!(words.starts_with("error: this server does not implement the grpc health protocol"), "{words}");
}

#[tokio::test]
async fn tls_is_spoken_where_it_is_asked_for() {
    let port = start(true).await;
    let ask = |mode: &str| run(json!({"grpc": {"port": port, "mode": mode}, "timeoutSeconds": 5}));
    assert_eq!(ask("TLS").await, Outcome::Success);
    assert!(matches!(ask("Plaintext").await, Outcome::Failure(_)));
}

#[tokio::test]
async fn nobody_there_and_nobody_who_answers() {
    let dead = dead_port().await;
    let words = failure(run(json!({"grpc": {"port": dead}})).await);
    let expected = format!(
        "error: failed to connect service at \"127.0.0.1:{dead}\": dial tcp 127.0.0.1:{dead}: connect: connection refused"
    );
    assert_eq!(words, expected);
    let silent = servers::Scripted::start("").await;
    let words = failure(run(json!({"grpc": {"port": silent.port}, "timeoutSeconds": 1})).await);
    assert!(words.starts_with("timeout: ") || words.starts_with("error: "), "{words}");
}

#[tokio::test]
async fn http2_is_spoken_without_tls_where_it_is_asked_for() {
    let port = start(false).await;
    let ask = |protocol: &str| {
        run(
            json!({"httpGet": {"path": "/grpc.health.v1.Health/Check", "port": port, "protocol": protocol}, "timeoutSeconds": 5}),
        )
    };
    assert_eq!(ask("HTTP2").await, Outcome::Success);
    assert!(matches!(ask("HTTP1").await, Outcome::Failure(_)));
}
