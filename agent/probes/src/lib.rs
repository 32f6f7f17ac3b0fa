//! Asks a container how it is: HTTP, TCP, gRPC, a command.
//!
//! [`probe`] runs a probe once, [`hook`] a lifecycle hook. Neither knows when, how often, or what follows: that is
//! decided by `berth_agent_core::probe`. Connections come from the node's own network and are kept by nobody; what a
//! container answers is read up to a limit, and its words end in events.
//!
//! Sources: `kubernetes@v1.37.2:pkg/probe`, `pkg/kubelet/prober/prober.go`, `pkg/kubelet/lifecycle/handlers.go`.

mod dial;
mod exec;
mod get;
mod grpc;
mod hook;
mod port;
mod tls;

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};

pub use exec::{Exec, ExecError, Ran};
pub use hook::{HookError, hook};

/// Bytes kept of what a container answers.
pub const ANSWER_LIMIT: usize = 10 << 10;

/// How often a probe that could not be carried out is tried before its run counts for nothing.
const TRIES: u32 = 3;

/// The container instance that is asked.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// As declared; its ports have names.
    pub container: &'a Container,
    /// The runtime's id of the instance.
    pub id: &'a str,
    /// The pod's address: the node's own on the host's network.
    pub ip: &'a str,
}

/// How one run of a probe ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Success,
    /// Well, with something to tell people.
    Warning(String),
    /// Badly, and in which words.
    Failure(String),
    /// Not at all: it could not be carried out, and says nothing about the container.
    Broken(String),
}

/// Runs a probe once. `command` is what an exec probe runs, its variables replaced.
pub async fn probe(probe: &Probe, command: &[String], asked: Asked<'_>, exec: &dyn Exec) -> Outcome {
    let seconds = probe.timeout_seconds.filter(|seconds| *seconds > 0).unwrap_or(1);
    let timeout = Duration::from_secs(u64::try_from(seconds).unwrap_or(1));
    let mut outcome = once(probe, command, asked, exec, timeout).await;
    for _ in 1..TRIES {
        if !matches!(outcome, Outcome::Broken(_)) {
            break;
        }
        outcome = once(probe, command, asked, exec, timeout).await;
    }
    outcome
}

async fn once(probe: &Probe, command: &[String], asked: Asked<'_>, exec: &dyn Exec, timeout: Duration) -> Outcome {
    if probe.exec.is_some() {
        exec::probe(command, asked.id, exec, timeout).await
    } else if let Some(get) = &probe.http_get {
        match get::Get::new(get, asked, "probe") {
            Ok(request) => get::probe(&request, timeout).await,
            Err(message) => Outcome::Broken(message),
        }
    } else if let Some(socket) = &probe.tcp_socket {
        match port::resolve(&socket.port, asked.container) {
            Ok(port) => tcp(host(socket.host.as_deref(), asked), port, timeout).await,
            Err(message) => Outcome::Broken(message),
        }
    } else if let Some(grpc) = &probe.grpc {
        grpc::probe(grpc, asked.ip, timeout).await
    } else {
        Outcome::Broken(format!("missing probe handler for {}", asked.container.name))
    }
}

/// The declared host, or the pod's address.
fn host<'a>(declared: Option<&'a str>, asked: Asked<'a>) -> &'a str {
    declared.filter(|host| !host.is_empty()).unwrap_or(asked.ip)
}

/// Whether a port takes connections.
async fn tcp(host: &str, port: u16, timeout: Duration) -> Outcome {
    match tokio::time::timeout(timeout, dial::tcp(host, port)).await {
        // Closed as politely as it was opened: a reset would be an error in the log of whoever listens.
        Ok(Ok(_connection)) => Outcome::Success,
        Ok(Err(error)) => Outcome::Failure(dial::words(host, port, &error)),
        Err(_) => Outcome::Failure(format!("dial tcp {}: i/o timeout", dial::authority(host, port))),
    }
}

#[cfg(test)]
mod tests;
