//! Exec and attach: `channel.k8s.io` in its versions.
//!
//! Source: `k8s.io/cri-streaming@v0.37.2:pkg/streaming/remotecommand/`.

mod resize;
mod status;
#[cfg(test)]
mod tests;

use std::future::pending;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::backend::{AttachRequest, Backend, ExecRequest, Streams};
use crate::link::{Link, Pace, Stream};
use crate::negotiate::{Transport, Version};

/// The most streams at a time: five are needed.
pub(crate) const STREAMS: usize = 16;

/// Channel numbers on WebSockets.
const STDIN: u32 = 0;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;
const ERROR: u32 = 3;
const RESIZE: u32 = 4;

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Command {
    Exec(ExecRequest),
    Attach(AttachRequest),
}

/// Which streams a session has.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    resize: bool,
}

/// The streams, as far as they are there.
#[derive(Default)]
struct Set {
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    error: Option<Stream>,
    resize: Option<Stream>,
}

impl Command {
    fn wanted(&self, version: Version, transport: Transport) -> Wanted {
        let (tty, stdin, stdout, stderr) = match self {
            Command::Exec(request) => (request.tty, request.stdin, request.stdout, request.stderr),
            Command::Attach(request) => (request.tty, request.stdin, request.stdout, request.stderr),
        };
        // A WebSocket has its channel for sizes in every version.
        let resize = tty && (version >= Version::V3 || !transport.opens_streams());
        Wanted { stdin, stdout, stderr: stderr && !tty, resize }
    }
}

/// One session, from its streams to its outcome.
pub(crate) async fn run(
    link: Link,
    (transport, version): (Transport, Version),
    command: Command,
    backend: Arc<dyn Backend>,
    pace: Pace,
) {
    let wanted = command.wanted(version, transport);
    let opened = if !transport.opens_streams() {
        Some(channels(&link, wanted))
    } else if let Ok(opened) = timeout(pace.creation, opened(&link, wanted)).await {
        opened
    } else {
        tracing::debug!("a streaming client did not open its streams in time");
        None
    };
    let Some(Set { stdin, stdout, stderr, error, resize }) = opened else { return };
    let (sizes, queue) = mpsc::channel(1);
    let streams = Streams {
        stdin: stdin.map(Stream::reader),
        stdout: stdout.map(Stream::held),
        stderr: stderr.map(Stream::held),
        resize: resize.is_some().then_some(queue),
    };
    let sizes = async {
        if let Some(resize) = resize {
            resize::pass_on(resize.reader(), sizes).await;
        } else {
            drop(sizes);
        }
    };
    // A stream that nobody asked for must not hold the others back.
    let strays = async {
        while let Some((stream, _)) = link.accept().await {
            stream.reset();
        }
    };
    let beside = async {
        tokio::join!(sizes, strays);
        pending::<()>().await;
    };
    let outcome = tokio::select! {
        outcome = call(command, streams, backend.as_ref()) => outcome,
        () = beside => return,
    };
    if let Some(error) = error {
        error.last_word(&outcome.on(version));
    }
    link.release();
}

async fn call(command: Command, streams: Streams, backend: &dyn Backend) -> status::Outcome {
    match command {
        Command::Exec(request) => match backend.exec(request, streams).await {
            Ok(code) => status::Outcome::Exit(code),
            Err(failure) => status::Outcome::Failed(format!("error executing command in container: {failure}")),
        },
        Command::Attach(request) => match backend.attach(request, streams).await {
            Ok(()) => status::Outcome::Exit(0),
            Err(failure) => status::Outcome::Failed(format!("error attaching to container: {failure}")),
        },
    }
}

/// The channels of a WebSocket, and the empty message by which a client knows that the session stands.
fn channels(link: &Link, wanted: Wanted) -> Set {
    let channel = |wanted: bool, id| wanted.then(|| link.channel(id));
    let set = Set {
        stdin: channel(wanted.stdin, STDIN),
        stdout: channel(wanted.stdout, STDOUT),
        stderr: channel(wanted.stderr, STDERR),
        error: Some(link.channel(ERROR)),
        resize: channel(wanted.resize, RESIZE),
    };
    if let Some(first) = set.stdout.as_ref().or(set.stderr.as_ref()).or(set.error.as_ref()) {
        first.send(&[]);
    }
    set
}

/// The streams that the client opens, in whatever order; `None` when it leaves before all are there.
async fn opened(link: &Link, wanted: Wanted) -> Option<Set> {
    let mut set = Set::default();
    while !set.complete(wanted) {
        let (stream, opened) = link.accept().await?;
        let (place, wanted) = match opened.kind.as_str() {
            "stdin" => (&mut set.stdin, wanted.stdin),
            "stdout" => (&mut set.stdout, wanted.stdout),
            "stderr" => (&mut set.stderr, wanted.stderr),
            "error" => (&mut set.error, true),
            "resize" => (&mut set.resize, wanted.resize),
            _ => {
                stream.reset();
                continue;
            }
        };
        if wanted && place.is_none() {
            *place = Some(stream);
        } else {
            stream.reset();
        }
    }
    Some(set)
}

impl Set {
    fn complete(&self, wanted: Wanted) -> bool {
        self.error.is_some()
            && self.stdin.is_some() == wanted.stdin
            && self.stdout.is_some() == wanted.stdout
            && self.stderr.is_some() == wanted.stderr
            && self.resize.is_some() == wanted.resize
    }
}
