//! One host: connections, authorization, redirects, and what its answers mean.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RANGE, RETRY_AFTER, USER_AGENT, WWW_AUTHENTICATE,
};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::Mutex;

use super::retry::Failure;
use super::{challenge, tls, token};
use crate::auth::{Auth, Credential};
use crate::error::PullError;
use crate::hosts::Endpoint;

const REDIRECTS: usize = 10;
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of an error's body is read for the registry's words.
const ERROR_LIMIT: usize = 16 << 10;
const AGENT: &str = concat!("berth/", env!("CARGO_PKG_VERSION"));

pub(super) type Http = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query<'a> {
    /// As the image names it; mirrors are told.
    pub(super) registry: &'a str,
    pub(super) repository: &'a str,
    /// Below the endpoint's path.
    pub(super) path: &'a str,
    pub(super) accept: &'a str,
    /// For messages.
    pub(super) what: &'a str,
}

#[derive(Debug)]
pub(super) struct Host {
    endpoint: Endpoint,
    http: Http,
    credential: Credential,
    /// The Authorization that worked last.
    authorization: Mutex<Option<HeaderValue>>,
    stall: Duration,
}

impl Host {
    pub(super) fn new(endpoint: Endpoint, auth: Option<&Auth>, stall: Duration) -> Result<Self, PullError> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(endpoint.dial_timeout.unwrap_or(DIAL_TIMEOUT)));
        let tls = tls::config(&endpoint)?;
        let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let http = Client::builder(TokioExecutor::new())
            .build(builder.enable_http1().enable_http2().wrap_connector(connector));
        let ours = auth.filter(|auth| auth.is_for(&endpoint.authority, endpoint.mirror));
        let credential = ours.map_or(Credential::Anonymous, Auth::credential);
        Ok(Self { endpoint, http, credential, authorization: Mutex::new(None), stall })
    }

    /// Whether the configuration lets this host be reached without encryption.
    pub(super) fn is_plain(&self) -> bool {
        self.endpoint.scheme == "http"
    }

    pub(super) fn authority(&self) -> &str {
        &self.endpoint.authority
    }

    /// Whether this host may be asked: for what a tag means, or for content by digest.
    pub(super) fn may(&self, resolve: bool) -> bool {
        if resolve { self.endpoint.resolve } else { self.endpoint.pull }
    }

    pub(super) fn unreachable(&self, what: &str, error: &dyn std::error::Error) -> PullError {
        PullError::Unreachable { what: what.to_owned(), detail: format!("{}: {}", self.authority(), chain(error)) }
    }

    /// Awaits something of a response, at most as long as a transfer may stall.
    pub(super) async fn within<T>(&self, what: &str, future: impl Future<Output = T>) -> Result<T, PullError> {
        tokio::time::timeout(self.stall, future).await.map_err(|_| PullError::Unreachable {
            what: what.to_owned(),
            detail: format!("{}: no progress for {} s", self.authority(), self.stall.as_secs()),
        })
    }

    /// A successful answer (200 or 206), after authorization and redirects.
    pub(super) async fn get(&self, query: &Query<'_>, from: Option<u64>) -> Result<Response<Incoming>, Failure> {
        let url = self.endpoint.url(query.registry, query.path);
        let mut authorized = false;
        loop {
            let authorization = self.authorization.lock().await.clone();
            let response = self.follow(&url, query, authorization.as_ref(), from).await?;
            match response.status() {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok(response),
                // Also when an earlier authorization has run out; a second refusal is final.
                StatusCode::UNAUTHORIZED if !authorized => {
                    authorized = true;
                    let fresh = self.authorize(response.headers(), query).await?;
                    let Some(fresh) = fresh else { return Err(self.failure(query.what, response).await) };
                    *self.authorization.lock().await = Some(fresh);
                }
                _ => return Err(self.failure(query.what, response).await),
            }
        }
    }

    /// The Authorization that the challenges ask for; none when we have nothing to offer.
    async fn authorize(&self, headers: &HeaderMap, query: &Query<'_>) -> Result<Option<HeaderValue>, Failure> {
        let challenges = challenge::parse(headers.get_all(WWW_AUTHENTICATE));
        if let Credential::Bearer(token) = &self.credential {
            return Ok(token::bearer(token));
        }
        if let Some(bearer) = challenges.iter().find(|challenge| challenge.is("bearer")) {
            return token::fetch(self, bearer, &self.credential, query.what, query.repository).await;
        }
        match &self.credential {
            Credential::Password { username, password } if challenges.iter().any(|c| c.is("basic")) => {
                Ok(token::basic(username, password))
            }
            _ => Ok(None),
        }
    }

    /// A GET that follows redirects: never to plain http from https, and without our secrets to another host.
    async fn follow(
        &self,
        url: &str,
        query: &Query<'_>,
        authorization: Option<&HeaderValue>,
        from: Option<u64>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut uri: Uri = url.parse().map_err(|error| self.unreachable(query.what, &error))?;
        let first = uri.authority().cloned();
        for _ in 0..=REDIRECTS {
            let mut request = Request::builder().method(Method::GET).uri(uri.clone()).header(USER_AGENT, AGENT);
            request = request.header(ACCEPT, query.accept);
            if uri.authority() == first.as_ref() {
                for (name, value) in &self.endpoint.headers {
                    request = request.header(name, value);
                }
                if let Some(authorization) = authorization {
                    request = request.header(AUTHORIZATION, authorization);
                }
            }
            if let Some(from) = from {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let request = request.body(Full::default()).map_err(|error| self.unreachable(query.what, &error))?;
            let response = self.send(request, query.what).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
            uri = redirect(&uri, location).map_err(|reason| PullError::Unreachable {
                what: query.what.to_owned(),
                detail: format!("{}: {reason}", self.authority()),
            })?;
        }
        let detail = format!("{}: more than {REDIRECTS} redirects", self.authority());
        Err(PullError::Unreachable { what: query.what.to_owned(), detail }.into())
    }

    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        what: &str,
    ) -> Result<Response<Incoming>, PullError> {
        let sent = self.within(what, self.http.request(request)).await?;
        sent.map_err(|error| self.unreachable(what, &error))
    }

    /// What an unsuccessful answer means, with the registry's words.
    pub(super) async fn failure(&self, what: &str, response: Response<Incoming>) -> Failure {
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let body = self.within(what, Limited::new(response.into_body(), ERROR_LIMIT).collect()).await;
        let body = body.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let words = words(&body);
        let colon = if words.is_empty() { "" } else { ": " };
        let what = what.to_owned();
        let detail = format!("{} answered {status}{colon}{words}", self.authority());
        let error = match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => PullError::NotFound { what, detail },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => PullError::Unauthorized { what, detail },
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => PullError::Unreachable { what, detail },
            status if status.is_server_error() => PullError::Unreachable { what, detail },
            _ => PullError::BadManifest { what, reason: detail },
        };
        Failure { error, retry_after }
    }
}

fn redirect(from: &Uri, location: &str) -> Result<Uri, String> {
    let text = if location.contains("://") {
        location.to_owned()
    } else {
        let base = format!(
            "{}://{}",
            from.scheme_str().unwrap_or("https"),
            from.authority().map(|authority| authority.as_str()).unwrap_or_default()
        );
        if location.starts_with('/') {
            format!("{base}{location}")
        } else {
            let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{base}{folder}/{location}")
        }
    };
    let to: Uri = text.parse().map_err(|_| format!("redirected to {location:?}"))?;
    match (from.scheme_str(), to.scheme_str()) {
        (Some("https"), Some("https")) | (Some("http"), Some("http" | "https")) if to.authority().is_some() => Ok(to),
        (Some("https"), Some("http")) => Err(format!("redirected from https to plain http ({location})")),
        _ => Err(format!("redirected to {location:?}")),
    }
}

/// The messages of a registry's error document, else the beginning of its text; one line.
fn words(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<Message>,
    }
    #[derive(serde::Deserialize)]
    struct Message {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let text = match serde_json::from_slice::<Errors>(body) {
        Ok(Errors { errors }) => {
            let lines: Vec<_> = errors.iter().map(|error| format!("{}: {}", error.code, error.message)).collect();
            lines.join("; ")
        }
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let line: Vec<&str> = text.split_whitespace().collect();
    line.join(" ").chars().filter(|c| !c.is_control()).take(300).collect()
}

/// An error with its causes, which say more than it does; repeated words once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_never_lose_encryption() {
        let https: Uri = "https://r.example/v2/a/blobs/b".parse().expect("uri");
        let http: Uri = "http://r.example/v2/a/blobs/b".parse().expect("uri");
        assert_eq!(redirect(&https, "/x?y=1").expect("absolute path").to_string(), "https://r.example/x?y=1");
        assert_eq!(redirect(&https, "c").expect("relative").to_string(), "https://r.example/v2/a/blobs/c");
        assert_eq!(redirect(&http, "https://cdn/x").expect("upgrade").to_string(), "https://cdn/x");
        assert!(redirect(&https, "http://cdn/x").expect_err("downgrade").contains("plain http"));
        assert!(redirect(&https, "file:///etc/passwd").is_err());
    }

    #[test]
    fn the_registrys_words_are_one_bounded_line() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest\nunknown"}]}"#;
        assert_eq!(words(body), "MANIFEST_UNKNOWN: manifest unknown");
        assert_eq!(words(b"<h1>\n  Bad   gateway"), "<h1> Bad gateway");
        assert_eq!(words("x".repeat(1000).as_bytes()).len(), 300);
    }
}
