//! Which protocol a client and this server have in common.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Method, Request, StatusCode};

use crate::link::Protocol;
use crate::spdy;
use crate::websocket::{Channels, Coding, Tunnel};

const SPDY: &str = "SPDY/3.1";
const VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const SOCKET_KEY: &str = "sec-websocket-key";
const SOCKET_PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
const SOCKET_VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");
const SOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
/// RFC 6455 section 1.3.
const SOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The subprotocols of exec and attach over SPDY.
const REMOTE_SPDY: &[(&str, Version)] = &[
    ("v5.channel.k8s.io", Version::V5),
    ("v4.channel.k8s.io", Version::V4),
    ("v3.channel.k8s.io", Version::V3),
    ("v2.channel.k8s.io", Version::V2),
    ("channel.k8s.io", Version::V1),
];

const BINARY: Transport = Transport::Channels(Coding::Binary, false);
const BASE64: Transport = Transport::Channels(Coding::Base64, false);

/// Those over a WebSocket; "" is for clients that name none.
const REMOTE_SOCKET: &[(&str, Transport, Version)] = &[
    ("v5.channel.k8s.io", Transport::Channels(Coding::Binary, true), Version::V5),
    ("v4.channel.k8s.io", BINARY, Version::V4),
    ("v4.base64.channel.k8s.io", BASE64, Version::V4),
    ("channel.k8s.io", BINARY, Version::V1),
    ("base64.channel.k8s.io", BASE64, Version::V1),
    ("", BINARY, Version::V1),
];

const FORWARD_SPDY: &[(&str, Version)] = &[("portforward.k8s.io", Version::V1)];

const FORWARD_SOCKET: &[(&str, Transport, Version)] = &[
    ("SPDY/3.1+portforward.k8s.io", Transport::Tunnel, Version::V1),
    ("v4.channel.k8s.io", BINARY, Version::V4),
    ("v4.base64.channel.k8s.io", BASE64, Version::V4),
    ("", BINARY, Version::V1),
];

/// A version of the remote command protocol, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V1,
    V2,
    /// With sizes of terminals.
    V3,
    /// With exit codes.
    V4,
    /// With half-closed streams, also on WebSockets.
    V5,
}

/// What carries the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Spdy,
    /// SPDY inside a WebSocket.
    Tunnel,
    /// Whether channels can be closed one by one.
    Channels(Coding, bool),
}

impl Transport {
    pub(crate) fn protocol(self) -> Box<dyn Protocol> {
        match self {
            Transport::Spdy => Box::new(spdy::Connection::new()),
            Transport::Tunnel => Box::new(Tunnel::new()),
            Transport::Channels(coding, closes) => Box::new(Channels::new(coding, closes)),
        }
    }

    /// Whether the client opens streams; otherwise they are there from the start.
    pub(crate) fn opens_streams(self) -> bool {
        !matches!(self, Transport::Channels(..))
    }
}

/// What both sides speak.
#[derive(Debug)]
pub(crate) struct Agreed {
    pub(crate) transport: Transport,
    pub(crate) version: Version,
    /// Of the answer.
    pub(crate) headers: HeaderMap,
}

/// Why there is no session.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) reason: String,
    /// In a box, since a map of headers makes every result wide.
    pub(crate) headers: Box<HeaderMap>,
}

impl Refusal {
    fn new(status: StatusCode, reason: impl Into<String>) -> Refusal {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))]);
        Refusal { status, reason: reason.into(), headers: Box::new(headers) }
    }

    fn bad(reason: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, reason)
    }
}

pub(crate) fn remote_command<B>(http: &Request<B>) -> Result<Agreed, Refusal> {
    if is_socket(http) { socket(http, REMOTE_SOCKET) } else { spdy(http.headers(), REMOTE_SPDY) }
}

/// `ports`: those of the request, which the old WebSocket protocol can't do without.
pub(crate) fn port_forward<B>(http: &Request<B>, ports: &[u16]) -> Result<Agreed, Refusal> {
    if !is_socket(http) {
        return spdy(http.headers(), FORWARD_SPDY);
    }
    let agreed = socket(http, FORWARD_SOCKET)?;
    // Two channels each, numbered in a byte of which 255 is taken.
    if !agreed.transport.opens_streams() && (ports.is_empty() || ports.len() > 127) {
        return Err(Refusal::bad("port forwarding over WebSocket channels needs 1 to 127 ports in the request for it"));
    }
    Ok(agreed)
}

fn is_socket<B>(http: &Request<B>) -> bool {
    http.headers().get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && contains(http.headers(), CONNECTION, "upgrade")
}

fn spdy(headers: &HeaderMap, served: &[(&'static str, Version)]) -> Result<Agreed, Refusal> {
    if !contains(headers, CONNECTION, "upgrade") || !contains(headers, UPGRADE, "spdy/3.1") {
        return Err(Refusal::bad(
            "unable to upgrade: missing upgrade headers in request: Connection: Upgrade, Upgrade: SPDY/3.1 or websocket",
        ));
    }
    if !headers.contains_key(VERSION) {
        return Err(Refusal::bad("unable to upgrade: header X-Stream-Protocol-Version does not exist in request"));
    }
    let wanted = list(headers, VERSION);
    if wanted.is_empty() {
        return Err(Refusal::bad("unable to upgrade: header X-Stream-Protocol-Version names no protocol"));
    }
    let chosen = wanted.iter().find_map(|wanted| served.iter().find(|(name, _)| name == wanted));
    let Some(&(name, version)) = chosen else {
        let mut refusal = Refusal::new(
            StatusCode::FORBIDDEN,
            format!(
                "unable to upgrade: unable to negotiate protocol: client supports {wanted:?}, server accepts {:?}",
                served.iter().map(|(name, _)| *name).collect::<Vec<_>>()
            ),
        );
        for &(name, _) in served {
            refusal.headers.append(ACCEPTED, HeaderValue::from_static(name));
        }
        return Err(refusal);
    };
    let headers = HeaderMap::from_iter([
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static(SPDY)),
        (VERSION, HeaderValue::from_static(name)),
    ]);
    Ok(Agreed { transport: Transport::Spdy, version, headers })
}

fn socket<B>(http: &Request<B>, served: &[(&'static str, Transport, Version)]) -> Result<Agreed, Refusal> {
    let headers = http.headers();
    if http.method() != Method::GET {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "a WebSocket begins with GET"));
    }
    if headers.get(&SOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut refusal = Refusal::bad("missing or bad WebSocket version: 13 is the one that is known");
        refusal.headers.insert(SOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(refusal);
    }
    let Some(key) = headers.get(SOCKET_KEY).filter(|key| (1..=64).contains(&key.len())) else {
        return Err(Refusal::bad("header Sec-WebSocket-Key is missing or of a wrong length"));
    };
    let mut wanted = list(headers, SOCKET_PROTOCOL);
    if wanted.is_empty() {
        wanted.push(String::new());
    }
    let chosen = wanted.iter().find_map(|wanted| served.iter().find(|(name, ..)| name == wanted));
    let Some(&(name, transport, version)) = chosen else {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            format!(
                "requested protocol(s) are not supported: {wanted:?}; supports {:?}",
                served.iter().map(|(name, ..)| *name).collect::<Vec<_>>()
            ),
        ));
    };
    let proof = [key.as_bytes(), SOCKET_GUID].concat();
    let proof = STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &proof));
    let proof = HeaderValue::try_from(proof).map_err(|_| Refusal::bad("header Sec-WebSocket-Key is no use"))?;
    let mut headers = HeaderMap::from_iter([
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SOCKET_ACCEPT, proof),
    ]);
    if !name.is_empty() {
        headers.insert(SOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    Ok(Agreed { transport, version, headers })
}

/// Whether a header has `word`, which is in lower case, somewhere in it.
fn contains(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    let values = headers.get_all(name);
    values.iter().any(|value| value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains(word)))
}

/// What a header lists, repeated or with commas.
fn list(headers: &HeaderMap, name: HeaderName) -> Vec<String> {
    let values = headers.get_all(name);
    let words = values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    words.map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
