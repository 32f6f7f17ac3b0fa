//! A sandbox's shim, as the runtime holds it: a process and a connection.

mod link;
mod spawn;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_plan::PROTOCOL;
use berth_plan::message::{Event, Failure, Held, Reply, Request};
use berth_sys::pidfd::PidFd;
use tokio::sync::mpsc;

use crate::facts;
use link::Link;
pub(crate) use spawn::spawn;

/// A shim answers within microseconds, except where a container's creation waits for a file system.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connected shim.
#[derive(Debug)]
pub(crate) struct Shim {
    pub(crate) pid: i32,
    /// Its start in clock ticks since boot.
    pub(crate) started: u64,
    process: PidFd,
    link: Arc<Link>,
    reader: tokio::task::JoinHandle<()>,
}

/// What a shim holds, as it said on connecting.
#[derive(Debug, Clone)]
pub(crate) struct Greeting {
    pub(crate) sandbox_ready: bool,
    pub(crate) containers: Vec<Held>,
}

/// Why a shim did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShimError {
    #[error("the sandbox's shim is gone")]
    Gone,
    #[error("the sandbox's shim does not answer")]
    Silent,
    #[error("{}", .0.message)]
    Failed(Failure),
    #[error("the sandbox's shim answers out of turn")]
    Unexpected,
    #[error("the sandbox's shim: {0}")]
    Io(#[from] io::Error),
}

impl Shim {
    /// Connects to the shim in a sandbox's folder. Its events go to the receiver, which ends when the shim is gone.
    pub(crate) async fn connect(
        folder: &Path,
    ) -> Result<(Arc<Self>, Greeting, mpsc::UnboundedReceiver<Event>), ShimError> {
        let socket = berth_sys::seqpacket::connect(&folder.join("shim.sock"))?;
        berth_sys::fd::set_nonblocking(socket.as_fd(), true)?;
        let link = Arc::new(Link::new(socket)?);
        let (sender, receiver) = mpsc::unbounded_channel();
        // Until its number is known, the end of the connection has to do for the end of the process.
        let greeting = link.first(Request::Hello { protocol: PROTOCOL });
        let reply = tokio::time::timeout(PATIENCE, greeting).await.map_err(|_| ShimError::Silent)??;
        let Reply::Hello { pid, sandbox_ready, containers, .. } = reply else { return Err(ShimError::Unexpected) };
        let process = PidFd::open(pid).map_err(|_| ShimError::Gone)?;
        // Read after the descriptor was opened: if it still exists then, both mean the same process.
        let started = facts::start_time(pid).ok_or(ShimError::Gone)?;
        let reader = tokio::spawn(link::read(Arc::clone(&link), process.as_fd().try_clone_to_owned()?, sender));
        let shim = Arc::new(Self { pid, started, process, link, reader });
        Ok((shim, Greeting { sandbox_ready, containers }, receiver))
    }

    /// Sends a request and waits for its reply; a failure that the shim reports is an error.
    pub(crate) async fn call(&self, request: Request, descriptors: &[BorrowedFd<'_>]) -> Result<Reply, ShimError> {
        let call = self.link.call(request, descriptors);
        match tokio::time::timeout(PATIENCE, call).await.map_err(|_| ShimError::Silent)?? {
            Reply::Failed(failure) => Err(ShimError::Failed(failure)),
            reply => Ok(reply),
        }
    }

    /// As [`Shim::call`] for requests that are answered with [`Reply::Done`].
    pub(crate) async fn order(&self, request: Request, descriptors: &[BorrowedFd<'_>]) -> Result<(), ShimError> {
        match self.call(request, descriptors).await? {
            Reply::Done => Ok(()),
            _ => Err(ShimError::Unexpected),
        }
    }

    /// Ends the process. Its children go to init.
    pub(crate) fn kill(&self) {
        let _ = self.process.kill();
    }

    /// Whether the process ends within that time.
    pub(crate) fn ends_within(&self, milliseconds: i32) -> bool {
        self.process.has_ended(milliseconds).unwrap_or(true)
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
