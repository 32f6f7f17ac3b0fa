//! One GET over TLS, and what can go wrong with it told apart.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONNECTION, DATE, HOST, HeaderValue, USER_AGENT};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::clock::{self, Validity};
use crate::pin::certificates;
use crate::{Credentials, JoinError};

const CONNECT: Duration = Duration::from_secs(10);
const WHOLE: Duration = Duration::from_secs(30);
/// A ConfigMap holds 1 MiB at most; JSON may take some bytes for one.
const LIMIT: usize = 8 << 20;
const AGENT: &str = concat!("berth/", env!("CARGO_PKG_VERSION"));

/// Host and port of an API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// A name or an address, the latter without brackets.
    host: String,
    port: u16,
}

impl Endpoint {
    /// Reads `HOST:PORT`, with or without `https://`. The port may be absent only behind `https://`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let url = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let uri: Uri = url.parse().map_err(|_| format!("{text:?} is not of the form HOST:PORT"))?;
        if uri.scheme_str() != Some("https") {
            return Err(format!("{text:?}: the scheme must be https"));
        }
        let plain = uri.query().is_none() && matches!(uri.path(), "" | "/");
        let authority = uri.authority().filter(|authority| plain && !authority.as_str().contains('@'));
        let authority = authority.ok_or_else(|| format!("{text:?} is not of the form HOST:PORT"))?;
        let port = match authority.port_u16() {
            Some(0) => None,
            None if text.contains("://") => Some(443),
            port => port,
        };
        let port = port.ok_or_else(|| format!("{text:?} names no port: kubeadm's default is 6443"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        ServerName::try_from(host.clone())
            .map_err(|_| format!("{text:?}: {host:?} is neither a name nor an address"))?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(out, "[{}]:{}", self.host, self.port),
            false => write!(out, "{}:{}", self.host, self.port),
        }
    }
}

/// Whose certificate is taken.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trust<'a> {
    /// Anybody's: the answer must be checked by other means.
    Anybody,
    /// Only one by the certificates of this PEM bundle, for the host that was dialled.
    Authority(&'a [u8]),
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) date: Option<Timestamp>,
    /// Of the server's own certificate.
    pub(crate) validity: Option<Validity>,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The server's words about a refusal (`Status.message`), with `prefix` before; empty when there are none.
    pub(crate) fn words(&self, prefix: &str) -> String {
        #[derive(serde::Deserialize)]
        struct Status {
            message: String,
        }
        serde_json::from_slice::<Status>(&self.body)
            .map(|status| format!("{prefix}{}", status.message.lines().next().unwrap_or_default()))
            .unwrap_or_default()
    }

    /// That `endpoint` gave this instead of `what`.
    pub(crate) fn unexpected(&self, what: &str, endpoint: &Endpoint) -> JoinError {
        JoinError::Answer {
            what: what.to_owned(),
            endpoint: endpoint.to_string(),
            status: self.status,
            words: self.words(": "),
        }
    }
}

/// Gets `path` of the server.
pub(crate) async fn get(
    endpoint: &Endpoint,
    trust: Trust<'_>,
    credentials: &Credentials,
    path: &str,
) -> Result<Answer, JoinError> {
    let slow = |_| unreachable(endpoint, format!("no answer within {} s", WHOLE.as_secs()));
    let exchange = timeout(WHOLE, exchange(endpoint, trust, credentials, path)).await.map_err(slow)?;
    match exchange {
        Err(Failure::OutOfTime(error)) => {
            // Whose fault that is, our clock's or the certificate's, tells an answer that is taken from anybody.
            let probe = timeout(WHOLE, self::exchange(endpoint, Trust::Anybody, &Credentials::Anonymous, "/version"));
            if let Ok(Ok(answer)) = probe.await {
                clock::judge(clock::now(), answer.date, answer.validity)?;
            }
            Err(error)
        }
        Err(Failure::Other(error)) => Err(error),
        Ok(answer) => Ok(answer),
    }
}

enum Failure {
    /// The certificate is not good at the present by our clock.
    OutOfTime(JoinError),
    Other(JoinError),
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        Self::Other(error)
    }
}

async fn exchange(
    endpoint: &Endpoint,
    trust: Trust<'_>,
    credentials: &Credentials,
    path: &str,
) -> Result<Answer, Failure> {
    let config = client_config(endpoint, trust, credentials)?;
    let dial = timeout(CONNECT, TcpStream::connect((endpoint.host.as_str(), endpoint.port))).await;
    let dialled = dial.map_err(|_| unreachable(endpoint, format!("no connection within {} s", CONNECT.as_secs())))?;
    let stream = dialled.map_err(|error| unreachable(endpoint, plain(&error)))?;
    let name = ServerName::try_from(endpoint.host.clone())
        .map_err(|_| JoinError::request(endpoint.to_string(), "is neither a name nor an address"))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let stream = stream.map_err(|error| handshake(endpoint, &error))?;
    let validity = leaf(&stream).and_then(Validity::of);

    let broken = |error: &dyn fmt::Display| unreachable(endpoint, format!("the connection broke: {error}"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    tokio::spawn(connection);
    let response = sender.send_request(request(endpoint, credentials, path)?).await.map_err(|error| broken(&error))?;
    let date = response.headers().get(DATE).and_then(|value| clock::date(value.to_str().ok()?));
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), LIMIT).collect().await.map_err(|error| broken(&error))?;
    Ok(Answer { status, date, validity, body: body.to_bytes() })
}

fn request(endpoint: &Endpoint, credentials: &Credentials, path: &str) -> Result<Request<Empty<Bytes>>, JoinError> {
    let mut request = Request::get(path)
        .header(HOST, endpoint.to_string())
        .header(USER_AGENT, AGENT)
        .header(ACCEPT, "application/json")
        .header(CONNECTION, "close");
    if let Credentials::Bearer(token) = credentials {
        let value = HeaderValue::try_from(format!("Bearer {token}"));
        let mut value = value.map_err(|_| JoinError::request("token", "holds what can't be sent in a header"))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    request.body(Empty::new()).map_err(|error| JoinError::request(path, error.to_string()))
}

fn leaf(stream: &TlsStream<TcpStream>) -> Option<&CertificateDer<'static>> {
    stream.get_ref().1.peer_certificates()?.first()
}

fn client_config(endpoint: &Endpoint, trust: Trust<'_>, credentials: &Credentials) -> Result<ClientConfig, JoinError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let tls = |error: rustls::Error| JoinError::request("credentials", format!("can't be used for TLS: {error}"));
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(tls)?;
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Anybody => berth_tls::Anybody::new(&provider),
        Trust::Authority(bundle) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(bundle)? {
                roots.add(certificate).map_err(|error| JoinError::Authority(error.to_string()))?;
            }
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| JoinError::Authority(format!("{error} ({endpoint})")))?
        }
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    match credentials {
        Credentials::Certificate { certificate, key } => {
            let key = PrivateKeyDer::from_pem_slice(key)
                .map_err(|error| JoinError::request("client-key", format!("can't be read: {error}")))?;
            builder.with_client_auth_cert(certificates(certificate)?, key).map_err(tls)
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn unreachable(endpoint: &Endpoint, reason: String) -> JoinError {
    JoinError::Unreachable { endpoint: endpoint.to_string(), reason }
}

/// The system's words without "(os error 111)".
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

fn handshake(endpoint: &Endpoint, error: &io::Error) -> Failure {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        let reason = if error.kind() == io::ErrorKind::UnexpectedEof { "it hung up".to_owned() } else { plain(error) };
        return unreachable(endpoint, reason).into();
    };
    let identity =
        |reason: &str| JoinError::ServerIdentity { endpoint: endpoint.to_string(), reason: reason.to_owned() };
    match tls {
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            Failure::OutOfTime(identity("it has expired"))
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => Failure::OutOfTime(identity("it is not valid yet")),
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => identity(
            "it is for other names than this one; use a name or address that it is for, or add this one to \
             apiServer.certSANs and renew it",
        )
        .into(),
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            identity("it is not by the cluster's CA: another server answers there, or cluster-info is out of date")
                .into()
        }
        rustls::Error::InvalidCertificate(other) => identity(&format!("{other:?}")).into(),
        other => Failure::Other(JoinError::NotTls {
            endpoint: endpoint.to_string(),
            reason: other.to_string().to_lowercase(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_name_a_host_and_a_port() {
        let endpoint = |text| Endpoint::parse(text).map(|endpoint| endpoint.to_string());
        assert_eq!(endpoint("10.0.0.1:6443").as_deref(), Ok("10.0.0.1:6443"));
        assert_eq!(endpoint("kind-control-plane:6443").as_deref(), Ok("kind-control-plane:6443"));
        assert_eq!(endpoint("[2001:db8::1]:6443").as_deref(), Ok("[2001:db8::1]:6443"));
        assert_eq!(endpoint("https://api.example.com").as_deref(), Ok("api.example.com:443"));
        assert_eq!(endpoint("https://10.0.0.1:6443/").as_deref(), Ok("10.0.0.1:6443"));
        for bad in
            ["", "10.0.0.1", "host", "http://a:1", "https://a:1/path", "a:0", "a:99999", "u@a:1", "a b:1", ":6443"]
        {
            endpoint(bad).expect_err(bad);
        }
    }
}
