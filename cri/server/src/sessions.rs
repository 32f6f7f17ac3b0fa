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
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

use crate::runtime::Runtime;

/// The sessions under way. Each keeps the runtime, and with it the lock of the state folder: so they end with the service.
#[derive(Debug, Clone, Default)]
pub(crate) struct Underway {
    tracker: TaskTracker,
    over: CancellationToken,
}

impl Underway {
    /// Ends all sessions, and those that are still asked for.
    pub(crate) fn end(&self) {
        self.over.cancel();
    }

    /// Waits until the service ends.
    pub(crate) async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Ends all sessions, and waits until none keeps the runtime.
    pub(crate) async fn ended(&self) {
        self.end();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// The runtime as those see it who serve streams. It does not keep the runtime.
#[derive(Debug, Clone)]
pub(crate) struct Sessions {
    runtime: Weak<Runtime>,
    underway: Underway,
}

impl Sessions {
    pub(crate) fn of(runtime: &Arc<Runtime>) -> Self {
        Self { runtime: Arc::downgrade(runtime), underway: runtime.sessions.clone() }
    }

    /// Keeps the runtime for one session.
    async fn hold<T>(&self, session: impl AsyncFnOnce(&Arc<Runtime>) -> Result<T, Failure>) -> Result<T, Failure> {
        let ending = || Failure::new("the container runtime is ending");
        // Counted before the runtime is taken, so that `Underway::ended` misses none.
        let session = self.underway.tracker.track_future(async {
            let runtime = self.runtime.upgrade().ok_or_else(ending)?;
            session(&runtime).await
        });
        tokio::select! {
            biased;
            () = self.underway.over.cancelled() => Err(ending()),
            outcome = session => outcome,
        }
    }
}

#[async_trait]
impl Backend for Sessions {
    async fn exec(&self, request: ExecRequest, streams: Streams) -> Result<i32, Failure> {
        self.hold(async |runtime| exec::run(runtime, request, streams).await).await
    }

    async fn attach(&self, request: AttachRequest, streams: Streams) -> Result<(), Failure> {
        self.hold(async |runtime| attach::run(runtime, request, streams).await).await
    }

    async fn port_forward(&self, sandbox: &str, port: u16, connection: (Reader, Writer)) -> Result<(), Failure> {
        self.hold(async |runtime| forward::run(runtime, sandbox, port, connection).await).await
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
