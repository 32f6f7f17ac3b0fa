//! Port-forward: pairs of streams, one for data and one for an error, per connection.
//!
//! Source: `k8s.io/cri-streaming@v0.37.2:pkg/streaming/portforward/`.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::backend::{Backend, Failure, PortForwardRequest};
use crate::link::{Link, Opened, Pace, Stream};

/// The most streams at a time: some 2000 connections.
pub(crate) const STREAMS: usize = 4096;

/// Half of a pair, waiting for the other.
struct Half {
    stream: Stream,
    is_data: bool,
    port: u16,
    until: Instant,
}

/// A session over SPDY, until the client leaves.
pub(crate) async fn pairs(link: Link, request: PortForwardRequest, backend: Arc<dyn Backend>, pace: Pace) {
    let request = Arc::new(request);
    let mut connections = JoinSet::new();
    let mut halves: HashMap<String, Half> = HashMap::new();
    loop {
        let deadline = halves.values().map(|half| half.until).min();
        tokio::select! {
            arrival = link.accept() => {
                let Some((stream, opened)) = arrival else { break };
                let Some((is_data, port)) = read(&opened) else {
                    stream.reset();
                    continue;
                };
                let id = pair(&stream, &opened, is_data);
                match halves.remove(&id) {
                    None => {
                        let until = Instant::now() + pace.creation;
                        halves.insert(id, Half { stream, is_data, port, until });
                    }
                    Some(half) if half.is_data == is_data => {
                        tracing::debug!(id, "a second stream of one kind for one forwarded connection");
                        stream.reset();
                        halves.insert(id, half);
                    }
                    Some(half) => {
                        let (data, error, port) =
                            if is_data { (stream, half.stream, port) } else { (half.stream, stream, half.port) };
                        connections.spawn(connection(backend.clone(), request.clone(), port, data, error));
                    }
                }
            }
            Some(_ended) = connections.join_next(), if !connections.is_empty() => {}
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                give_up(&mut halves);
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

/// Whether it is a data stream, and its port; `None` for what is neither data nor error, or has no port.
fn read(opened: &Opened) -> Option<(bool, u16)> {
    let is_data = match opened.kind.as_str() {
        "data" => true,
        "error" => false,
        _ => return None,
    };
    let port = opened.port.parse().ok().filter(|port| *port > 0)?;
    Some((is_data, port))
}

/// What both streams of a pair have in common. Clients without request ids open the error stream first and the data
/// stream with the next number.
fn pair(stream: &Stream, opened: &Opened, is_data: bool) -> String {
    match (opened.request.as_str(), is_data) {
        ("", true) => stream.id.saturating_sub(2).to_string(),
        ("", false) => stream.id.to_string(),
        (request, _) => request.to_owned(),
    }
}

fn give_up(halves: &mut HashMap<String, Half>) {
    let now = Instant::now();
    for (id, half) in halves.extract_if(|_, half| half.until <= now) {
        if half.is_data {
            half.stream.reset();
        } else {
            half.stream.last_word(format!("(request={id}) timed out waiting for streams").as_bytes());
        }
    }
}

async fn connection(
    backend: Arc<dyn Backend>,
    request: Arc<PortForwardRequest>,
    port: u16,
    data: Stream,
    error: Stream,
) {
    let id = data.id;
    let link = data.link();
    if let Err(failure) = carry(backend.as_ref(), &request, port, data).await {
        error.last_word(explain(&request, port, &failure).as_bytes());
        link.reset(id);
    }
}

async fn carry(backend: &dyn Backend, request: &PortForwardRequest, port: u16, data: Stream) -> Result<(), Failure> {
    if !request.ports.is_empty() && !request.ports.contains(&port) {
        return Err(Failure::new("the port is not among those that were asked for"));
    }
    backend.port_forward(&request.sandbox, port, data.split()).await
}

fn explain(request: &PortForwardRequest, port: u16, failure: &Failure) -> String {
    tracing::debug!(sandbox = request.sandbox, port, %failure, "a forwarded connection failed");
    format!("error forwarding port {port} to sandbox {}: {failure}", request.sandbox)
}

/// A session over the channels of a WebSocket: one connection per port, each told to the client as two bytes, the
/// lower first, on both channels.
pub(crate) async fn channels(link: Link, request: PortForwardRequest, backend: Arc<dyn Backend>) {
    let request = Arc::new(request);
    let mut connections = JoinSet::new();
    for (index, port) in (0u32..).zip(request.ports.iter().copied()) {
        let (data, error) = (link.channel(2 * index), link.channel(2 * index + 1));
        data.send(&port.to_le_bytes());
        error.send(&port.to_le_bytes());
        connections.spawn(connection(backend.clone(), request.clone(), port, data, error));
    }
    while connections.join_next().await.is_some() {}
}
