//! A request and its answer over a connection of their own.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderValue, LOCATION};
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::Get;
use crate::tls::{self, Offer};
use crate::{ANSWER_LIMIT, dial};

/// Redirects that are followed.
const REDIRECTS: usize = 10;
/// Bytes of an answer's head.
const HEAD_LIMIT: usize = 64 << 10;
/// How long the other side may take to close, so that it is not cut off. Nobody waits for this.
const FAREWELL: Duration = Duration::from_millis(100);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GetError {
    /// The other side does not speak TLS.
    #[error("http: server gave HTTP response to HTTPS client")]
    Plain,
    /// Its body can't be read.
    #[error("{0}")]
    Body(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<hyper::Error> for GetError {
    fn from(error: hyper::Error) -> Self {
        let mut words = if error.is_incomplete_message() { "EOF".to_owned() } else { error.to_string() };
        let mut next = std::error::Error::source(&error);
        while let Some(cause) = next {
            words = format!("{words}: {cause}");
            next = cause.source();
        }
        Self::Other(words)
    }
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    location: Option<String>,
    /// Its first bytes.
    pub(super) body: String,
}

/// Asks, and asks on where the answer leads to on the same host.
pub(super) async fn follow(get: &Get) -> Result<Answer, GetError> {
    let mut current = get.clone();
    for _ in 0..REDIRECTS {
        let answer = exchange(&current).await?;
        let leads = matches!(answer.status, 301 | 302 | 303 | 307 | 308);
        let Some(location) = answer.location.as_deref().filter(|_| leads) else { return Ok(answer) };
        match current.redirected(location).map_err(GetError::Other)? {
            Some(next) => current = next,
            None => return Ok(answer),
        }
    }
    Err(GetError::Other(format!("stopped after {REDIRECTS} redirects")))
}

async fn exchange(get: &Get) -> Result<Answer, GetError> {
    let lost = |error: io::Error| GetError::Other(dial::words(&get.host, get.port, &error));
    let stream = dial::conversation(&get.host, get.port).await.map_err(lost)?;
    if !get.https {
        return if get.http2 { http2(get, stream).await } else { http1(get, stream).await };
    }
    let stream = tls::connect(&get.host, stream, Offer::Http)
        .await
        .map_err(|error| if tls::is_plain(&error) { GetError::Plain } else { GetError::Other(error.to_string()) })?;
    match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => http2(get, stream).await,
        _ => http1(get, stream).await,
    }
}

async fn http1<S>(get: &Get, stream: S) -> Result<Answer, GetError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut request = request(get, get.target.clone(), Version::HTTP_11)?;
    let host = match &get.named {
        Some(named) => named.clone(),
        None => HeaderValue::try_from(authority(get)).map_err(|error| GetError::Other(error.to_string()))?,
    };
    request.headers_mut().insert(HOST, host);
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(HEAD_LIMIT).handshake(TokioIo::new(stream)).await?;
    let mut connection = Box::pin(connection.without_shutdown());
    let mut talk = pin!(async move { read(sender.send_request(request).await?).await });
    let (answer, ended) = tokio::select! {
        biased;
        answer = &mut talk => (answer, None),
        ended = &mut connection => (talk.await, Some(ended)),
    };
    drop(tokio::spawn(tokio::time::timeout(FAREWELL, async move {
        let ended = match ended {
            Some(ended) => ended,
            None => connection.await,
        };
        let Ok(parts) = ended else { return };
        let mut stream = parts.io.into_inner();
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await.is_ok_and(|length| length > 0) {}
    })));
    answer
}

async fn http2<S>(get: &Get, stream: S) -> Result<Answer, GetError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let named = get.named.as_ref().and_then(|named| named.to_str().ok());
    let scheme = if get.https { "https" } else { "http" };
    let uri = format!("{scheme}://{}{}", named.map_or_else(|| authority(get), str::to_owned), get.target);
    let request = request(get, uri, Version::HTTP_2)?;
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(u32::try_from(HEAD_LIMIT).unwrap_or(u32::MAX))
        .handshake(TokioIo::new(stream))
        .await?;
    let mut connection: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>> = Box::pin(connection);
    let mut talk = pin!(async move { read(sender.send_request(request).await?).await });
    tokio::select! {
        biased;
        answer = &mut talk => answer,
        _ = &mut connection => talk.await,
    }
}

/// Host and port, without the port where the scheme implies it.
fn authority(get: &Get) -> String {
    let implied = if get.https { 443 } else { 80 };
    let full = dial::authority(&get.host, get.port);
    if get.port == implied { full.trim_end_matches(&format!(":{implied}")).to_owned() } else { full }
}

fn request(get: &Get, uri: String, version: Version) -> Result<Request<Empty<Bytes>>, GetError> {
    let mut request =
        Request::get(uri).version(version).body(Empty::new()).map_err(|error| GetError::Other(error.to_string()))?;
    *request.headers_mut() = get.headers.clone();
    Ok(request)
}

/// Reads an answer's head and the first of its body.
async fn read(response: Response<Incoming>) -> Result<Answer, GetError> {
    let status = response.status().as_u16();
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while bytes.len() < ANSWER_LIMIT {
        let Some(frame) = body.frame().await else { break };
        if let Ok(data) = frame.map_err(|error| GetError::Body(error.to_string()))?.into_data() {
            let room = ANSWER_LIMIT - bytes.len();
            bytes.extend_from_slice(&data[..data.len().min(room)]);
        }
    }
    Ok(Answer { status, location, body: String::from_utf8_lossy(&bytes).into_owned() })
}
