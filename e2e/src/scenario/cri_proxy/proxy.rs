//! A proxy between a CRI client and a runtime, which cuts connections at chosen places of calls.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::fate::{Fate, Fates};
use super::frame::{DATA, Frame, HEADERS, PREFACE};

/// What a kubelet and its runtimes allow for a message, in bytes, with gRPC's own five before it.
pub(super) const MESSAGE: usize = 16 << 20;
const PREFIX: usize = 5;
/// The proxy's own question to the server.
const PING: [u8; 8] = *b"delivery";

/// A listening proxy. Dropping it ends it, and its connections with it.
#[derive(Debug)]
pub(super) struct Proxy {
    socket: PathBuf,
    accepting: JoinHandle<()>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    fates: Fates,
    /// Messages that were larger than they may be.
    oversized: Mutex<Vec<String>>,
}

/// The calls of one connection, by the number of their stream.
#[derive(Debug, Default)]
struct Calls(Mutex<HashMap<u32, Call>>);

#[derive(Debug)]
struct Call {
    fate: Fate,
    /// Bytes of the request and of the answer so far.
    asked: usize,
    answered: usize,
    /// Frames of the answer so far.
    frames: usize,
}

impl Proxy {
    /// Listens on `socket` for the runtime behind `server`.
    pub(super) fn start(socket: &Path, server: &Path, fates: Fates) -> Result<Self> {
        let _ = fs::remove_file(socket);
        let listener = UnixListener::bind(socket).with_context(|| socket.display().to_string())?;
        let shared = Arc::new(Shared { fates, oversized: Mutex::default() });
        let (server, work) = (server.to_owned(), Arc::clone(&shared));
        let accepting = tokio::spawn(async move {
            // Aborted with this task.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = UnixStream::connect(&server).await {
                    connections.spawn(connection(client, server, Arc::clone(&work)));
                }
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { socket: socket.to_owned(), accepting, shared })
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(super) fn fates(&self) -> &Fates {
        &self.shared.fates
    }

    /// Messages that were larger than they may be.
    pub(super) fn oversized(&self) -> Vec<String> {
        self.shared.oversized.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Until one side ends it, or a fate does: both sockets are closed then, whatever is on its way.
async fn connection(client: UnixStream, server: UnixStream, shared: Arc<Shared>) {
    let calls = Calls::default();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // An error here is one side's end, like the others.
    tokio::select! {
        _ = requests(from_client, to_server, &calls, &shared) => {}
        _ = answers(from_server, to_client, &calls, &shared) => {}
    }
}

/// Returns when the connection is to be cut.
async fn requests(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    calls: &Calls,
    shared: &Shared,
) -> io::Result<()> {
    let mut preface = [0; PREFACE];
    from.read_exact(&mut preface).await?;
    to.write_all(&preface).await?;
    while let Some(frame) = Frame::read(&mut from).await? {
        let stream = frame.stream();
        if frame.kind() == HEADERS && !calls.all().contains_key(&stream) {
            let fate = shared.fates.deal();
            calls.all().insert(stream, Call { fate, asked: 0, answered: 0, frames: 0 });
        }
        let fate = calls.of(stream, |call| {
            if frame.kind() == DATA {
                call.asked += frame.length();
            }
            (call.fate, call.asked)
        });
        match fate {
            Some((Fate::CutBefore, _)) => return Ok(()),
            Some((Fate::CutRequest, _)) if frame.kind() == DATA => {
                frame.write_half(&mut to).await?;
                return to.flush().await;
            }
            // The server may refuse it, and shall get the chance.
            Some((_, asked)) if asked > MESSAGE + PREFIX => shared.oversized("a request", asked),
            _ => {}
        }
        frame.write(&mut to).await?;
        if frame.ends_stream() && matches!(fate, Some((Fate::CutAfter(_), _))) {
            Frame::ping(PING).write(&mut to).await?;
        }
    }
    Ok(())
}

/// Returns when the connection is to be cut.
async fn answers(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    calls: &Calls,
    shared: &Shared,
) -> io::Result<()> {
    while let Some(frame) = Frame::read(&mut from).await? {
        if frame.answers_ping(PING) {
            // The request is delivered. Everybody else's answers are lost with the connection, so they need not come.
            let left = calls.all().values().find_map(|call| match call.fate {
                Fate::CutAfter(left) => Some(left),
                _ => None,
            });
            sleep(left.unwrap_or_default()).await;
            return Ok(());
        }
        let (stream, kind, length, ends) = (frame.stream(), frame.kind(), frame.length(), frame.ends_stream());
        let belongs = matches!(kind, DATA | HEADERS);
        let call = calls.of(stream, |call| {
            let frames = call.frames;
            if kind == DATA {
                call.answered += length;
            }
            call.frames += usize::from(belongs);
            (call.fate, frames, call.answered)
        });
        if let (true, Some((fate, frames, answered))) = (belongs, call) {
            if answered > MESSAGE + PREFIX {
                shared.oversized("an answer", answered);
            }
            match fate {
                // The answer was faster than that of the ping; the time is the server's all the same.
                Fate::CutAfter(left) => {
                    sleep(left).await;
                    return Ok(());
                }
                Fate::CutAnswer(through) if frames >= through || ends => {
                    frame.write_half(&mut to).await?;
                    return to.flush().await;
                }
                Fate::Hold(time) if frames == 0 => sleep(time).await,
                _ => {}
            }
        }
        frame.write(&mut to).await?;
        if ends {
            calls.all().remove(&stream);
        }
    }
    Ok(())
}

impl Calls {
    fn all(&self) -> MutexGuard<'_, HashMap<u32, Call>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of<T>(&self, stream: u32, look: impl FnOnce(&mut Call) -> T) -> Option<T> {
        self.all().get_mut(&stream).map(look)
    }
}

impl Shared {
    fn oversized(&self, what: &str, bytes: usize) {
        let mut list = self.oversized.lock().unwrap_or_else(PoisonError::into_inner);
        // One message has many frames.
        if list.len() < 10 {
            list.push(format!("{what} of at least {bytes} bytes"));
        }
    }
}
