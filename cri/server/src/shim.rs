//! A sandbox's shim, as the runtime holds it: a process and a connection.
//!
//! The process alone says when a shim is gone. A connection may end before: a shim drops a client that does not read, and
//! ours breaks when descriptors or memory are short. Then another one is made, and the shim says anew what it holds.

mod link;
mod spawn;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_plan::PROTOCOL;
use berth_plan::message::{Event, Failure, Held, Reply, Request};
use berth_sys::pidfd::PidFd;
use berth_sys::{Mode, OFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::facts;
use crate::watched::watched;
use link::Link;
pub(crate) use spawn::spawn;

/// A shim answers within microseconds, except where something waits for a file system.
const PATIENCE: Duration = Duration::from_secs(60);
/// What ends something waits for nothing: a shim that does not even take a signal hangs.
const BRIEF: Duration = Duration::from_secs(10);
/// A start by another OCI runtime may take as long as the shim lets its commands, and that should be the shim's own word.
const START: Duration = Duration::from_secs(130);

/// How long a shim whose connection has ended may take to end, too.
const ENDING: Duration = Duration::from_millis(500);
/// Between two attempts to connect again, the last of which is repeated.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(10)];

/// A connected shim.
#[derive(Debug)]
pub(crate) struct Shim {
    pub(crate) pid: i32,
    /// Its start in clock ticks since boot.
    pub(crate) started: u64,
    /// The newest protocol that both sides know.
    pub(crate) protocol: u16,
    process: PidFd,
    current: Arc<Current>,
    reader: tokio::task::JoinHandle<()>,
}

/// The connection in use, and what tells that there will be no other.
#[derive(Debug)]
struct Current {
    folder: PathBuf,
    link: Mutex<Arc<Link>>,
    /// Readable once the process has ended.
    process: AsyncFd<OwnedFd>,
}

/// What a shim says unasked.
#[derive(Debug)]
pub(crate) enum News {
    Event(Event),
    /// Events may have been lost: it is to be asked what it holds.
    Missed,
}

/// What a shim holds, as it said on connecting.
#[derive(Debug, Clone)]
pub(crate) struct Greeting {
    pub(crate) sandbox_ready: bool,
    pub(crate) containers: Vec<Held>,
    pub(crate) execs: Vec<String>,
}

/// Why a shim did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShimError {
    #[error("the sandbox's shim is gone")]
    Gone,
    /// It may have done what was asked, or still do it.
    #[error("the sandbox's shim does not answer")]
    Silent,
    /// It may have done what was asked.
    #[error("the connection to the sandbox's shim broke; try again")]
    Broken,
    #[error("{}", .0.message)]
    Failed(Failure),
    #[error("the sandbox's shim answers out of turn")]
    Unexpected,
    #[error("the sandbox's shim: {0}")]
    Io(#[from] io::Error),
}

impl Shim {
    /// Connects to the shim in a sandbox's folder. Its news go to the receiver, which ends when the shim is gone.
    pub(crate) async fn connect(
        folder: &Path,
    ) -> Result<(Arc<Self>, Greeting, mpsc::UnboundedReceiver<News>), ShimError> {
        let greeted = tokio::time::timeout(PATIENCE, greet(folder)).await;
        let (link, pid, protocol, greeting) = greeted.map_err(|_| ShimError::Silent)??;
        let process = PidFd::open(pid).map_err(|_| ShimError::Gone)?;
        // Read after the descriptor was opened: if it still exists then, both mean the same process.
        let started = facts::start_time(pid).ok_or(ShimError::Gone)?;
        let current = Arc::new(Current {
            folder: folder.to_path_buf(),
            link: Mutex::new(Arc::new(link)),
            process: watched(process.as_fd().try_clone_to_owned()?, Interest::READABLE)?,
        });
        let (sender, receiver) = mpsc::unbounded_channel();
        let reader = tokio::spawn(follow(Arc::clone(&current), pid, sender));
        let shim = Arc::new(Self { pid, started, protocol, process, current, reader });
        Ok((shim, greeting, receiver))
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
        let patience = match request {
            Request::Start { .. } => START,
            Request::Hello { .. } | Request::Signal { .. } | Request::Forget { .. } | Request::Shutdown => BRIEF,
            _ => PATIENCE,
        };
        let link = self.current.link();
        match tokio::time::timeout(patience, link.call(request, descriptors)).await.map_err(|_| ShimError::Silent)? {
            Ok((Reply::Failed(failure), _)) => Err(ShimError::Failed(failure)),
            Err(ShimError::Broken) if self.current.ends_soon().await => Err(ShimError::Gone),
            other => other,
        }
    }

    /// Asks it what it holds.
    pub(crate) async fn holds(&self) -> Result<Greeting, ShimError> {
        match self.call(Request::Hello { protocol: PROTOCOL }, &[]).await? {
            Reply::Hello { sandbox_ready, containers, execs, .. } => Ok(Greeting { sandbox_ready, containers, execs }),
            _ => Err(ShimError::Unexpected),
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

impl Current {
    fn link(&self) -> Arc<Link> {
        Arc::clone(&self.link.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for the end of the process.
    async fn ended(&self) {
        // An error would mean that the event loop is gone, and we with it.
        let _ = self.process.readable().await;
    }

    async fn ends_soon(&self) -> bool {
        tokio::time::timeout(ENDING, self.ended()).await.is_ok()
    }
}

/// Delivers what the shim says for as long as its process lives, by one connection after the other.
async fn follow(current: Arc<Current>, pid: i32, news: mpsc::UnboundedSender<News>) {
    loop {
        current.link().read(current.ended(), &news).await;
        if current.ends_soon().await {
            return;
        }
        tracing::warn!(pid, "the connection to a shim broke; another one is made");
        let again = async {
            let mut pauses = PAUSES.iter().chain(PAUSES.last().into_iter().cycle());
            loop {
                match greet(&current.folder).await {
                    Ok((link, found, ..)) if found == pid => break link,
                    Ok((_, found, ..)) => tracing::warn!(pid, found, "another shim answers"),
                    Err(error) => tracing::warn!(pid, %error, "a shim is not reached"),
                }
                tokio::time::sleep(pauses.next().copied().unwrap_or(ENDING)).await;
            }
        };
        let link = tokio::select! {
            again = again => again,
            () = current.ended() => return,
        };
        *current.link.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(link);
        let _ = news.send(News::Missed);
    }
}

/// A new connection, with the shim's process, the newest protocol that both know, and what it holds. Waits for a shim that
/// hangs: one connection waits as well as many, for which its queue has no room.
async fn greet(folder: &Path) -> Result<(Link, i32, u16, Greeting), ShimError> {
    let socket = connect(folder)?;
    berth_sys::fd::set_nonblocking(socket.as_fd(), true)?;
    let link = Link::new(socket)?;
    let first = link.first(Request::Hello { protocol: PROTOCOL });
    let Reply::Hello { pid, protocol, sandbox_ready, containers, execs } = first.await? else {
        return Err(ShimError::Unexpected);
    };
    Ok((link, pid, protocol.min(PROTOCOL), Greeting { sandbox_ready, containers, execs }))
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
