//! Attach: a client joins the streams of a container's first process.

use std::future::pending;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use berth_plan::message::{Reply, Request};
use berth_stream::{AttachRequest, Failure, Reader, Streams, Writer};
use tokio_util::sync::CancellationToken;

use super::copy::{self, End};
use super::exec::follow_size;
use super::{failure, io_failure};
use crate::container::Container;
use crate::descriptor::Descriptor;
use crate::runtime::Runtime;
use crate::shim::Shim;

/// How much output a client may be behind until the shim takes it for one that does not read.
const QUEUE: usize = 1 << 20;
/// The shim's protocol that knows attach.
const SINCE: u16 = 2;
/// How long the news of a container's end may take after the end of its output.
const NEWS: Duration = Duration::from_secs(2);

pub(super) async fn run(runtime: &Arc<Runtime>, request: AttachRequest, streams: Streams) -> Result<(), Failure> {
    let container = runtime.container(&request.container).map_err(failure)?;
    if !container.is_running() {
        return Err(Failure::new(format!("container {:?} is not running", container.id)));
    }
    let shim = runtime.sandbox(&container.sandbox).ok().and_then(|sandbox| sandbox.shim());
    let shim = shim.ok_or_else(|| Failure::new("the sandbox's shim is gone"))?;
    if shim.protocol < SINCE {
        return Err(Failure::new("this pod was started by an older version, which can't attach: recreate the pod"));
    }
    let Streams { stdin, stdout, stderr, resize } = streams;
    let joined = join(&container, &shim, [stdout, stderr], stdin.is_some()).await?;
    let Joined { outputs: [stdout, stderr], input, size } = joined;
    // What a client of a container without input sends goes nowhere.
    let detaches = !container.keeps_clients_without_input();
    let sized = async {
        match &size {
            Some(master) => match follow_size(master, resize).await {},
            None => pending().await,
        }
    };
    tokio::select! {
        ended = show(&container, stdout, stderr) => ended,
        () = typed(stdin, input, detaches) => Ok(()),
        () = sized => Ok(()),
    }
}

/// A client's streams, joined to the container's.
struct Joined {
    outputs: [Option<(Descriptor, Writer)>; 2],
    /// What the container reads from, where it does and the client is to type.
    input: Option<Descriptor>,
    /// The master of the container's terminal.
    size: Option<OwnedFd>,
}

async fn join(
    container: &Container,
    shim: &Shim,
    writers: [Option<Writer>; 2],
    stdin: bool,
) -> Result<Joined, Failure> {
    let watch = io_failure("attach");
    let [stdout, mut stderr] = writers;
    if container.config().tty {
        // The kernel joins both outputs of a terminal.
        stderr = None;
    }
    let mut theirs = Vec::new();
    let mut pipe = |writer: Option<Writer>| -> std::io::Result<Option<(Descriptor, Writer)>> {
        let Some(writer) = writer else { return Ok(None) };
        let (reader, end) = berth_sys::fd::pipe()?;
        // A smaller queue serves, too.
        let _ = berth_sys::fd::set_pipe_size(end.as_fd(), QUEUE);
        theirs.push(end);
        Ok(Some((Descriptor::reader(reader)?, writer)))
    };
    let outputs = [pipe(stdout).map_err(&watch)?, pipe(stderr).map_err(&watch)?];
    let request = Request::Attach {
        container: container.id.clone(),
        stdin,
        stdout: outputs[0].is_some(),
        stderr: outputs[1].is_some(),
    };
    let descriptors: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
    let answer = shim.call_for(request, &descriptors).await;
    let (reply, mut given) =
        answer.map_err(|error| Failure::new(format!("failed to attach to container {:?}: {error}", container.id)))?;
    let Reply::Attached { terminal, stdin } = reply else {
        return Err(Failure::new("the sandbox's shim answers out of turn"));
    };
    let given = given.pop();
    let input = match &given {
        Some(fd) if stdin && terminal => Some(fd.try_clone().and_then(Descriptor::writer).map_err(&watch)?),
        _ => None,
    };
    match given {
        Some(master) if terminal => Ok(Joined { outputs, input, size: Some(master) }),
        Some(writer) if stdin => {
            Ok(Joined { outputs, input: Some(Descriptor::writer(writer).map_err(&watch)?), size: None })
        }
        _ => Ok(Joined { outputs, input, size: None }),
    }
}

/// Shows what the container prints until it ends.
async fn show(
    container: &Container,
    stdout: Option<(Descriptor, Writer)>,
    stderr: Option<(Descriptor, Writer)>,
) -> Result<(), Failure> {
    if stdout.is_none() && stderr.is_none() {
        container.ended().await;
        return Ok(());
    }
    if tokio::join!(copied(stdout), copied(stderr)) != (End::Complete, End::Complete) {
        return Ok(());
    }
    match tokio::time::timeout(NEWS, container.ended()).await {
        Ok(()) => Ok(()),
        Err(_) => Err(Failure::new(format!(
            "detached from container {:?}, which runs on: it closed its output, or this client did not read in time",
            container.id
        ))),
    }
}

async fn copied(stream: Option<(Descriptor, Writer)>) -> End {
    // The logger closes the pipe when the container has ended.
    match stream {
        Some((from, to)) => copy::output(from, Some(to), &CancellationToken::new()).await,
        None => End::Complete,
    }
}

/// Types what the client sends; returns when that is a reason to detach.
async fn typed(from: Option<Reader>, to: Option<Descriptor>, detaches: bool) {
    let Some(from) = from else { return pending().await };
    let heard = to.is_some();
    match copy::input(from, to).await {
        End::Gone => {}
        End::Complete if heard && detaches => {}
        End::Complete => pending().await,
    }
}
