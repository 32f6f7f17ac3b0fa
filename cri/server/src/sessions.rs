//! Streamed sessions: what a client's exec, attach and port-forward are joined to.
//!
//! What follows when a client goes away, whatever the session:
//!
//! - **exec without a terminal**: its standard input ends and its output has no reader any more (EPIPE, SIGPIPE), as with
//!   containerd. It is not killed: a backup that somebody began by exec goes on when his laptop sleeps.
//! - **exec with a terminal**: the terminal is hung up, so the command gets SIGHUP, as on any terminal.
//! - **attach**: the container notices nothing, unless its input was to be closed once (`stdin_once`).
//! - **port-forward**: the connection inside the pod ends.

mod attach;
mod copy;
mod exec;
mod forward;

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use berth_stream::{AttachRequest, Backend, ExecRequest, Failure, Reader, Server, Streams, Writer};
use tonic::Status;

use crate::runtime::Runtime;

/// The runtime as those see it who serve streams. It does not keep the runtime.
#[derive(Debug, Clone)]
pub(crate) struct Sessions {
    runtime: Weak<Runtime>,
}

impl Sessions {
    pub(crate) fn of(runtime: &Arc<Runtime>) -> Self {
        Self { runtime: Arc::downgrade(runtime) }
    }

    fn runtime(&self) -> Result<Arc<Runtime>, Failure> {
        self.runtime.upgrade().ok_or_else(|| Failure::new("the container runtime is ending"))
    }
}

#[async_trait]
impl Backend for Sessions {
    async fn exec(&self, request: ExecRequest, streams: Streams) -> Result<i32, Failure> {
        exec::run(&self.runtime()?, request, streams).await
    }

    async fn attach(&self, request: AttachRequest, streams: Streams) -> Result<(), Failure> {
        attach::run(&self.runtime()?, request, streams).await
    }

    async fn port_forward(&self, sandbox: &str, port: u16, connection: (Reader, Writer)) -> Result<(), Failure> {
        forward::run(&self.runtime()?, sandbox, port, connection).await
    }
}

/// The streaming server, which is started by whoever needs it first.
pub(crate) async fn server(runtime: &Arc<Runtime>) -> Result<&Server, Status> {
    let address: SocketAddr = runtime.config.stream_address;
    let start = || async { Server::start(address, Arc::new(Sessions::of(runtime))).await };
    runtime
        .streaming
        .get_or_try_init(start)
        .await
        .map_err(|error| Status::internal(format!("the streaming server can't listen on {address}: {error}")))
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn failure(status: Status) -> Failure {
    Failure::new(status.message())
}

fn io_failure(what: &'static str) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::new(format!("{what}: {error}"))
}
