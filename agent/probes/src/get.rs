//! HTTP requests to containers: one connection each, answers read up to a limit, redirects followed on the same host
//! only.
//!
//! Source: `kubernetes@v1.37.2:pkg/probe/http/{request,http}.go`.

mod exchange;
mod redirect;

use std::time::Duration;

use http::header::{ACCEPT, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use k8s_openapi::api::core::v1::HTTPGetAction;

use crate::{Asked, Outcome, dial, host, port};

pub(crate) use exchange::GetError;

/// The API's version, as the kubelet puts it into its user agent.
const VERSION: &str = "1.37";

/// A request that can be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Get {
    /// TLS or not.
    pub(crate) https: bool,
    /// HTTP/2 without TLS (`protocol: HTTP2`).
    http2: bool,
    host: String,
    port: u16,
    /// Path and query.
    target: String,
    /// The declared `Host` header, where it differs from host and port.
    named: Option<HeaderValue>,
    headers: HeaderMap,
}

impl Get {
    /// The request of a probe (`purpose` "probe") or a hook ("lifecycle"). `Err` says for people what is wrong.
    pub(crate) fn new(action: &HTTPGetAction, asked: Asked<'_>, purpose: &str) -> Result<Self, String> {
        let port = port::resolve(&action.port, asked.container)?;
        let https = action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
        let mut headers = HeaderMap::new();
        for header in action.http_headers.iter().flatten() {
            let name = HeaderName::try_from(&header.name)
                .map_err(|_| format!("net/http: invalid header field name {:?}", header.name))?;
            let value = HeaderValue::try_from(&header.value)
                .map_err(|_| format!("net/http: invalid header field value for {:?}", header.name))?;
            headers.append(name, value);
        }
        if !headers.contains_key(USER_AGENT) {
            let agent = format!("kube-{purpose}/{VERSION}");
            headers.insert(USER_AGENT, HeaderValue::try_from(agent).map_err(|error| error.to_string())?);
        }
        match headers.get(ACCEPT) {
            None => drop(headers.insert(ACCEPT, HeaderValue::from_static("*/*"))),
            // Declared empty: none is sent.
            Some(value) if value.is_empty() => drop(headers.remove(ACCEPT)),
            Some(_) => {}
        }
        let named = headers.remove(HOST).filter(|value| !value.is_empty());
        Ok(Self {
            https,
            http2: !https && action.protocol.as_deref() == Some("HTTP2"),
            host: host(action.host.as_deref(), asked).to_owned(),
            port,
            target: target(action.path.as_deref().unwrap_or_default()),
            named,
            headers,
        })
    }

    /// For people.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}{}", dial::authority(&self.host, self.port), self.target)
    }

    /// The same request without TLS and without what only a trusted server may see.
    pub(crate) fn plain(&self) -> Self {
        let mut plain = Self { https: false, ..self.clone() };
        plain.headers.remove(http::header::AUTHORIZATION);
        plain
    }
}

/// What a request line can carry of a declared path, which may hold a query.
fn target(path: &str) -> String {
    let path = path.split('#').next().unwrap_or_default();
    let mut out = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        out.push('/');
    }
    let bytes = path.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let escape =
            *byte == b'%' && bytes.get(at + 1..at + 3).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
        if escape || byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?[]".contains(byte) {
            out.push(char::from(*byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Asks, and judges the answer: 200 to 299 is well, 300 to 399 too, but told.
pub(crate) async fn probe(get: &Get, timeout: Duration) -> Outcome {
    let answer = match tokio::time::timeout(timeout, exchange::follow(get)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(GetError::Body(words))) => return Outcome::Broken(words),
        Ok(Err(error)) => return Outcome::Failure(format!("Get {:?}: {error}", get.url())),
        Err(_) => {
            let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
            return Outcome::Failure(format!("Get {:?}: {late}", get.url()));
        }
    };
    match answer.status {
        200..300 => Outcome::Success,
        300..400 => Outcome::Warning(format!("Probe terminated redirects, Response body: {}", answer.body)),
        // The body of a failure may hold what its readers must not see (kubernetes#99425).
        code => Outcome::Failure(format!("HTTP probe failed with statuscode: {code}")),
    }
}

/// Asks, and does not care what the answer is, as long as there is one.
pub(crate) async fn send(get: &Get) -> Result<(), GetError> {
    exchange::follow(get).await.map(drop)
}
