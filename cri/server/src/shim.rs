//! A sandbox's shim, as the runtime holds it: a process and a connection.

mod link;
mod spawn;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_plan::PROTOCOL;
use berth_plan::message::{Event, Failure, Held, Reply, Request};
use berth_sys::pidfd::PidFd;
use berth_sys::{Mode, OFlags};
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
    /// The newest protocol that both sides know.
    pub(crate) protocol: u16,
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
        let socket = connect(folder)?;
        berth_sys::fd::set_nonblocking(socket.as_fd(), true)?;
        let link = Arc::new(Link::new(socket)?);
        let (sender, receiver) = mpsc::unbounded_channel();
        // Until its number is known, the end of the connection has to do for the end of the process.
        let greeting = link.first(Request::Hello { protocol: PROTOCOL });
        let reply = tokio::time::timeout(PATIENCE, greeting).await.map_err(|_| ShimError::Silent)??;
        let Reply::Hello { pid, protocol, sandbox_ready, containers, .. } = reply else {
            return Err(ShimError::Unexpected);
        };
        let process = PidFd::open(pid).map_err(|_| ShimError::Gone)?;
        // Read after the descriptor was opened: if it still exists then, both mean the same process.
        let started = facts::start_time(pid).ok_or(ShimError::Gone)?;
        let reader = tokio::spawn(link::read(Arc::clone(&link), process.as_fd().try_clone_to_owned()?, sender));
        let shim = Arc::new(Self { pid, started, protocol: protocol.min(PROTOCOL), process, link, reader });
        Ok((shim, Greeting { sandbox_ready, containers }, receiver))
    }

    /// Sends a request and waits for its reply; a failure that the shim reports is an error.
    pub(crate) async fn call(&self, request: Request, descriptors: &[BorrowedFd<'_>]) -> Result<Reply, ShimError> {
        Ok(self.call_for(request, descriptors).await?.0)
    }

    /// As [`Shim::call`], for requests that are answered with descriptors.
    pub(crate) async fn call_for(
        &self,
        request: Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>), ShimError> {
        let call = self.link.call(request, descriptors);
        match tokio::time::timeout(PATIENCE, call).await.map_err(|_| ShimError::Silent)?? {
            (Reply::Failed(failure), _) => Err(ShimError::Failed(failure)),
            answer => Ok(answer),
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

/// A socket's path may have 107 bytes, a state folder's more: the folder is named by a descriptor.
fn connect(folder: &Path) -> io::Result<OwnedFd> {
    let folder = berth_sys::fd::open(folder, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    berth_sys::seqpacket::connect(Path::new(&format!("/proc/self/fd/{}/shim.sock", folder.as_raw_fd())))
}

/// Ends the shim of a folder that nobody is connected to, by the number that it wrote there.
pub(crate) fn end_stray(folder: &Path) {
    let Ok(text) = std::fs::read_to_string(folder.join("shim.pid")) else { return };
    let Some(process) = text.trim().parse().ok().and_then(|pid| Some((pid, PidFd::open(pid).ok()?))) else { return };
    let (pid, process): (i32, PidFd) = process;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut arguments = line.split(|byte| *byte == 0);
    // The number may be another process' by now.
    if arguments.nth(2) == Some(folder.as_os_str().as_bytes()) {
        let _ = process.kill();
        let _ = process.has_ended(2000);
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
