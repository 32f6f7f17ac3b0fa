//! The API server that is to be joined: its name, the way to it, its clock and its version.
//!
//! Nothing is told to it, and its certificate is taken whosever it is: whom to trust is found out by `berth join`, with
//! the token. What is asked for (/version) a kubeadm cluster tells anybody.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use berth_join::clock::{self, TOLERANCE};
use k8s_openapi::jiff::Timestamp;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::finding::{Finding, Subject, Verdict};
use crate::kubelet;

/// For one address; for an answer.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(5);
/// /version is half a kilobyte.
const LONGEST_ANSWER: u64 = 64 << 10;
/// A clock is right when it differs by no more than this; Date headers have whole seconds.
const RIGHT: Duration = Duration::from_secs(30);
/// A node may be this many minor versions older than its API server.
const SKEW: u32 = 3;

/// How far the way to the server went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Server {
    /// What was typed names no server.
    Malformed {
        typed: String,
        reason: String,
    },
    /// The name has no address.
    Unknown {
        host: String,
        reason: String,
    },
    /// None of its addresses takes a connection.
    Unreachable {
        endpoint: Endpoint,
        addresses: Vec<IpAddr>,
        reason: String,
    },
    /// Somebody takes connections and does not speak HTTPS.
    NoAnswer {
        endpoint: Endpoint,
        addresses: Vec<IpAddr>,
        reason: String,
    },
    Answered {
        endpoint: Endpoint,
        addresses: Vec<IpAddr>,
        answer: Answer,
    },
}

/// Host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// A name or an address, the latter without brackets.
    host: String,
    port: u16,
}

/// What it said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    status: u16,
    /// Its clock when it answered, and ours when the answer was there.
    date: Option<Timestamp>,
    received: Timestamp,
    /// "v1.37.2".
    version: Option<String>,
}

impl Endpoint {
    /// Reads `HOST:PORT`, with or without `https://`.
    fn parse(typed: &str) -> Result<Self, String> {
        let text = typed.strip_prefix("https://").unwrap_or(typed).trim_end_matches('/');
        let example = "write HOST:PORT, as in 192.0.2.1:6443";
        let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("it names no port: {example}"))?;
        let port =
            port.parse().ok().filter(|port| *port != 0).ok_or_else(|| format!("{port:?} is no port: {example}"))?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host).to_owned();
        if bare.is_none() && host.contains(':') {
            return Err("an IPv6 address goes in brackets: [2001:db8::1]:6443".to_owned());
        }
        ServerName::try_from(host.clone())
            .map_err(|_| format!("{host:?} is neither a name nor an address: {example}"))?;
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

impl Server {
    /// Goes the whole way, for some seconds at the most (but for the resolver's own).
    pub(super) fn visit(typed: &str) -> Self {
        let endpoint = match Endpoint::parse(typed) {
            Ok(endpoint) => endpoint,
            Err(reason) => return Self::Malformed { typed: typed.to_owned(), reason },
        };
        let sockets: Vec<SocketAddr> = match (endpoint.host.as_str(), endpoint.port).to_socket_addrs() {
            Ok(sockets) => sockets.collect(),
            Err(error) => return Self::Unknown { host: endpoint.host, reason: words(&error) },
        };
        let mut addresses: Vec<IpAddr> = sockets.iter().map(SocketAddr::ip).collect();
        addresses.dedup();
        let mut reason = "it has no address".to_owned();
        for socket in &sockets {
            match TcpStream::connect_timeout(socket, CONNECT) {
                Ok(stream) => {
                    return match ask(stream, &endpoint) {
                        Ok(answer) => Self::Answered { endpoint, addresses, answer },
                        Err(error) => Self::NoAnswer { endpoint, addresses, reason: words(&error) },
                    };
                }
                Err(error) => reason = words(&error),
            }
        }
        Self::Unreachable { endpoint, addresses, reason }
    }
}

fn ask(stream: TcpStream, endpoint: &Endpoint) -> io::Result<Answer> {
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(berth_tls::Anybody::new(&provider))
        .with_no_client_auth();
    let name = ServerName::try_from(endpoint.host.clone()).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?, stream);
    write!(stream, "GET /version HTTP/1.1\r\nHost: {endpoint}\r\nUser-Agent: berth\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    match stream.take(LONGEST_ANSWER).read_to_end(&mut bytes) {
        // Not every server says good-bye in TLS before it hangs up.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
        _ => {}
    }
    read(&bytes, Timestamp::now()).ok_or_else(|| io::Error::other("the answer is not HTTP"))
}

fn read(bytes: &[u8], received: Timestamp) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("date").then(|| value.trim().to_owned())
    };
    let date = lines.find_map(header).and_then(|date| clock::date(&date));
    // Also where the body comes in chunks.
    let object = body.find('{').zip(body.rfind('}')).and_then(|(first, last)| body.get(first..=last));
    let object: Option<serde_json::Value> = object.and_then(|object| serde_json::from_str(object).ok());
    let version = object.as_ref().and_then(|object| Some(object.get("gitVersion")?.as_str()?.to_owned()));
    Some(Answer { status, date, received, version })
}

/// The system's words without "(os error 111)".
fn words(error: &io::Error) -> String {
    if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) {
        return format!("nothing came back within {} s", CONNECT.as_secs());
    }
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Judges; the order is that of the report.
pub(super) fn judge(server: &Server) -> Vec<Finding> {
    let (endpoint, addresses) = match server {
        Server::Malformed { typed, reason } => {
            let cost = "the API server was not looked at";
            return vec![found("API server", typed.as_str()).bad(Verdict::Missing, cost, reason.as_str())];
        }
        Server::Unknown { host, reason } => {
            return vec![found("DNS", format!("{host}: {reason}")).bad(
                Verdict::Missing,
                "the API server is not found",
                format!("correct the name, /etc/resolv.conf, or write a line for {host} to /etc/hosts"),
            )];
        }
        Server::Unreachable { endpoint, addresses, .. }
        | Server::NoAnswer { endpoint, addresses, .. }
        | Server::Answered { endpoint, addresses, .. } => (endpoint, addresses),
    };
    let mut findings = Vec::new();
    if endpoint.host.parse::<IpAddr>().is_err() {
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        findings.push(found("DNS", format!("{} is {}", endpoint.host, addresses.join(", "))));
    }
    match server {
        Server::Unreachable { reason, .. } => {
            findings.push(found("reachability", format!("{endpoint}: {reason}")).bad(
                Verdict::Missing,
                "the cluster can't be joined",
                "look at routes and firewalls on the way, and whether the API server runs (kubeadm's port is 6443)",
            ));
        }
        Server::NoAnswer { reason, .. } => {
            findings.push(found("reachability", format!("{endpoint} takes connections, but {reason}")).bad(
                Verdict::Missing,
                "the cluster can't be joined",
                "that is no API server, or a proxy before it: look at the port",
            ));
        }
        Server::Answered { answer, .. } => {
            findings.push(found("reachability", format!("{endpoint} answers ({})", answer.status)));
            findings.push(clock(answer));
            findings.extend(answer.version.as_deref().map(version));
        }
        Server::Malformed { .. } | Server::Unknown { .. } => {}
    }
    findings
}

fn found(what: &'static str, detail: impl Into<String>) -> Finding {
    Finding::good(Subject::Server, what, detail)
}

fn clock(answer: &Answer) -> Finding {
    let Some(date) = answer.date else {
        return found("clock", "the API server does not tell the time").bad(
            Verdict::Less,
            "a clock that is off would show only when certificates are refused",
            "compare `date -u` here and there",
        );
    };
    let (ours, theirs) = (answer.received.as_second(), date.as_second());
    let off = Duration::from_secs(ours.abs_diff(theirs));
    if off <= RIGHT {
        return found("clock", "agrees with the API server's");
    }
    let side = if ours < theirs { "behind" } else { "ahead of" };
    let finding = found("clock", format!("{} {side} the API server's", clock::show(off)));
    let remedy = "set it right, for good: timedatectl set-ntp true";
    match off > TOLERANCE {
        true => finding.bad(
            Verdict::Missing,
            "certificates and tokens look expired or not yet valid, and joining fails",
            remedy,
        ),
        false => finding.bad(Verdict::Less, "times of events and logs can't be compared", remedy),
    }
}

fn version(theirs: &str) -> Finding {
    let finding = found("version", format!("Kubernetes {theirs}"));
    let (Some(server), Some(node)) = (minor(theirs), minor(kubelet::VERSION)) else { return finding };
    if node > server {
        let cost = format!("a node of 1.{node} asks for what an API server of 1.{server} does not know");
        return finding.bad(Verdict::Less, cost, "upgrade the control plane first");
    }
    if server - node > SKEW {
        let cost = format!("an API server of 1.{server} supports nodes from 1.{} on", server - SKEW);
        return finding.bad(Verdict::Less, cost, "install a newer Berth");
    }
    finding
}

/// 37 of `v1.37.2`.
fn minor(version: &str) -> Option<u32> {
    let (_, rest) = version.strip_prefix("v1")?.split_once('.')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

#[cfg(test)]
mod tests;
