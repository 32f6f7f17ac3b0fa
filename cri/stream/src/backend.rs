//! What the owner of the containers implements, and what it is handed.

use std::fmt;
use std::pin::Pin;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// Bytes from the client. End of file means that the client has closed this stream; an error that it has broken the stream
/// off (kind `ConnectionReset`) or is gone (`ConnectionAborted`). Dropping it discards what still comes.
pub type Reader = Pin<Box<dyn AsyncRead + Send>>;

/// Bytes to the client. A write waits while the client is slow and fails with `BrokenPipe` once the client is gone.
/// Dropping it, or shutting it down, is the end of file for the client; on exec and attach the client sees it only
/// after the outcome.
pub type Writer = Pin<Box<dyn AsyncWrite + Send>>;

/// The streams of one exec or attach; those that the client did not ask for are `None`.
pub struct Streams {
    pub stdin: Option<Reader>,
    pub stdout: Option<Writer>,
    /// Never with a terminal: there the kernel joins both outputs.
    pub stderr: Option<Writer>,
    /// Sizes of the client's terminal, only with a terminal. A bounded queue: when sizes come faster than they are
    /// taken, those between are left out and the newest stays. It ends with the client.
    pub resize: Option<mpsc::Receiver<TerminalSize>>,
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout.is_some())
            .field("stderr", &self.stderr.is_some())
            .field("resize", &self.resize.is_some())
            .finish()
    }
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

/// A process to run in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRequest {
    /// The container's id.
    pub container: String,
    /// Program and arguments.
    pub command: Vec<String>,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    /// Never together with `tty`.
    pub stderr: bool,
}

/// The running first process of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachRequest {
    /// The container's id.
    pub container: String,
    /// Whether the container has a terminal.
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    /// Never together with `tty`.
    pub stderr: bool,
}

/// Ports of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortForwardRequest {
    /// The sandbox's id.
    pub sandbox: String,
    /// The ports that may be named by the client; empty: any. A client of the old WebSocket protocol cannot name
    /// ports and gets exactly these.
    pub ports: Vec<u16>,
}

/// Why a session ended badly, in words for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub message: String,
}

impl Failure {
    #[must_use]
    pub fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into() }
    }
}

/// Who knows the containers.
///
/// **When the client goes away** the streams say so (see [`Reader`] and [`Writer`]; `resize` ends); the call then has
/// [`GRACE`] to clean up and return, after which its future is dropped. It is also dropped at once when the
/// [`Server`] is. What must outlive the client belongs in a task of the backend's own.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Runs a process and returns its exit code (128 + signal for one that a signal ended) once it has ended and its
    /// output was written to the streams.
    async fn exec(&self, request: ExecRequest, streams: Streams) -> Result<i32, Failure>;

    /// Joins the container's own streams; returns when the container ends or the client has left.
    async fn attach(&self, request: AttachRequest, streams: Streams) -> Result<(), Failure>;

    /// Carries one connection to `port` inside the sandbox's network; returns when both directions have ended.
    /// Several run at once per session.
    async fn port_forward(&self, sandbox: &str, port: u16, connection: (Reader, Writer)) -> Result<(), Failure>;
}

/// How long a [`Backend`]'s call may go on after its client has left.
pub const GRACE: std::time::Duration = std::time::Duration::from_secs(10);
