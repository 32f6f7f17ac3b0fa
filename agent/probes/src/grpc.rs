//! `grpc.health.v1.Health/Check`.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::GRPCAction;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::tls::{self, Offer};
use crate::{ANSWER_LIMIT, Outcome, dial};

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HealthCheckRequest {
    /// What is asked about; empty is the server as a whole.
    #[prost(string, tag = "1")]
    pub(crate) service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HealthCheckResponse {
    /// One of [`STATUSES`], by index.
    #[prost(int32, tag = "1")]
    pub(crate) status: i32,
}

/// `HealthCheckResponse.ServingStatus`.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: i32 = 1;

pub(crate) async fn probe(action: &GRPCAction, ip: &str, timeout: Duration) -> Outcome {
    let Some(port) = u16::try_from(action.port).ok().filter(|port| *port > 0) else {
        return Outcome::Failure(format!("invalid port number: {}", action.port));
    };
    let address = dial::authority(ip, port);
    let deadline = tokio::time::Instant::now() + timeout;
    let tls = action.mode.as_deref() == Some("TLS");
    let channel = match tokio::time::timeout_at(deadline, connect(ip, port, tls)).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(cause)) => return Outcome::Failure(format!("error: failed to connect service at {address:?}: {cause}")),
        Err(_) => {
            return Outcome::Failure(format!(
                "timeout: failed to connect service {address:?} within {}s: context deadline exceeded",
                timeout.as_secs()
            ));
        }
    };
    let service = action.service.clone().unwrap_or_default();
    match tokio::time::timeout_at(deadline, check(channel, service)).await {
        Ok(Ok(HealthCheckResponse { status: SERVING })) => Outcome::Success,
        Ok(Ok(HealthCheckResponse { status })) => {
            let name = usize::try_from(status).ok().and_then(|index| STATUSES.get(index));
            let name = name.map_or_else(|| status.to_string(), |name| (*name).to_owned());
            Outcome::Failure(format!("service unhealthy (responded with {name:?})"))
        }
        Ok(Err(status)) => Outcome::Failure(words(&status)),
        Err(_) => Outcome::Failure(format!("timeout: health rpc did not complete within {}s", timeout.as_secs())),
    }
}

async fn connect(ip: &str, port: u16, tls: bool) -> Result<Channel, String> {
    let host = ip.to_owned();
    // Dialled here and not in the connector, whose errors lose their words on the way.
    let stream = dial::conversation(&host, port).await.map_err(|error| dial::words(&host, port, &error))?;
    let uri = format!("http://{}", dial::authority(ip, port));
    let endpoint = Endpoint::try_from(uri).and_then(|endpoint| endpoint.user_agent("kube-probe/1.37"));
    let endpoint = endpoint.map_err(|error| error.to_string())?;
    let mut dialled = Some(stream);
    let connector = move |_: Uri| {
        let (stream, host) = (dialled.take(), host.clone());
        async move {
            // A second connection is never needed: the channel lives for one call.
            let stream = stream.ok_or_else(|| std::io::Error::other("the connection is lost"))?;
            let stream: Box<dyn Stream> =
                if tls { Box::new(tls::connect(&host, stream, Offer::Http2).await?) } else { Box::new(stream) };
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    };
    endpoint.connect_with_connector(tower::service_fn(connector)).await.map_err(|error| chain(&error))
}

/// What gRPC can be spoken over.
trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

async fn check(channel: Channel, service: String) -> Result<HealthCheckResponse, Status> {
    let mut client = Grpc::new(channel).max_decoding_message_size(ANSWER_LIMIT);
    client.ready().await.map_err(|error| Status::unavailable(chain(&error)))?;
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec: ProstCodec<HealthCheckRequest, HealthCheckResponse> = ProstCodec::default();
    Ok(client.unary(Request::new(HealthCheckRequest { service }), path, codec).await?.into_inner())
}

fn words(status: &Status) -> String {
    match status.code() {
        Code::Unimplemented => format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
            status.message()
        ),
        code => format!("error: health rpc probe failed: rpc error: code = {code:?} desc = {}", status.message()),
    }
}

/// An error and what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        out = format!("{out}: {cause}");
        next = cause.source();
    }
    out
}
