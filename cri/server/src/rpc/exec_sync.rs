//! ExecSync: a command in a running container, with what it prints. Probes are made of it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_cri_core::compile;
use berth_cri_proto::v1::{ExecSyncRequest, ExecSyncResponse};
use berth_plan::codec;
use berth_plan::message::{Exit, Reply, Request, Stage, Target};
use berth_sys::{Mode, OFlags};
use tokio::io::Interest;
use tokio::sync::oneshot;
use tonic::Status;

use super::invalid;
use crate::cgroups::{self, Entry};
use crate::container::Container;
use crate::runtime::{Runtime, new_id};
use crate::shim::{Shim, ShimError};
use crate::tasks::blocking;
use crate::watched::watched;

/// What is kept of both streams together, so that the answer fits into a message; the rest is read and dropped
/// (CVE-2022-31030).
const OUTPUT_LIMIT: usize = (16 << 20) - 1024;

/// How long output is read after the command has ended: what it left in the background may hold the stream for ever.
const DRAIN: Duration = Duration::from_secs(2);

/// How long the processes of a command may take to die of SIGKILL.
const DEATH: Duration = Duration::from_secs(10);

const SIGKILL: i32 = 9;

pub(crate) async fn call(runtime: &Arc<Runtime>, request: ExecSyncRequest) -> Result<ExecSyncResponse, Status> {
    let container = runtime.container(&request.container_id)?;
    container.state().may_exec().map_err(|refusal| {
        Status::failed_precondition(format!("failed to exec in container {:?}: {refusal}", container.id))
    })?;
    let sandbox = runtime.sandbox(&container.sandbox)?;
    let shim = sandbox.shim().ok_or_else(|| Status::failed_precondition("the sandbox's shim is gone"))?;
    let id = new_id()?;
    let ended = runtime.execs.expect(&id, &sandbox.id);
    let outcome = run(runtime, &container, &shim, &id, request, ended).await;
    runtime.execs.forget(&id);
    outcome
}

async fn run(
    runtime: &Arc<Runtime>,
    container: &Arc<Container>,
    shim: &Arc<Shim>,
    id: &str,
    request: ExecSyncRequest,
    mut ended: oneshot::Receiver<Exit>,
) -> Result<ExecSyncResponse, Status> {
    let timeout = u64::try_from(request.timeout).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
    let (stdout, stderr) = begin(runtime, container, shim, id, request.cmd).await?;
    // Both are read while the command runs, or it would wait for us.
    let (out, err) = (Stream::default(), Stream::default());
    let (to_out, to_err) = (Arc::clone(&out), Arc::clone(&err));
    let mut output = tokio::spawn(async move { tokio::join!(collect(stdout, &to_out), collect(stderr, &to_err)) });
    let exit = match timeout {
        None => (&mut ended).await.map_err(|_| gone())?,
        Some(limit) => match tokio::time::timeout(limit, &mut ended).await {
            Ok(exit) => exit.map_err(|_| gone())?,
            Err(_) => {
                end(shim, id, ended).await;
                output.abort();
                return Err(Status::deadline_exceeded(format!(
                    "failed to exec in container {:?}: the command did not end within {} s and was killed",
                    container.id,
                    limit.as_secs()
                )));
            }
        },
    };
    if tokio::time::timeout(DRAIN, &mut output).await.is_err() {
        output.abort();
        tracing::debug!(container = container.id, "output of a command is still held open after its end");
    }
    let taken = |stream: &Stream| std::mem::take(&mut *stream.lock().unwrap_or_else(PoisonError::into_inner));
    let (mut stdout, mut stderr) = (taken(&out), taken(&err));
    // Where both are long, each gets a half.
    stdout.truncate(OUTPUT_LIMIT - stderr.len().min(OUTPUT_LIMIT / 2));
    stderr.truncate(OUTPUT_LIMIT - stdout.len());
    Ok(ExecSyncResponse { stdout, stderr, exit_code: exit.code })
}

fn gone() -> Status {
    Status::unavailable("the sandbox's shim went away while the command ran")
}

/// Starts the command: the ends from which its output is read.
async fn begin(
    runtime: &Arc<Runtime>,
    container: &Arc<Container>,
    shim: &Arc<Shim>,
    id: &str,
    command: Vec<String>,
) -> Result<(OwnedFd, OwnedFd), Status> {
    let (work, inside, exec) = (Arc::clone(runtime), Arc::clone(container), id.to_owned());
    let prepared = blocking(move || {
        let internal = |error: &dyn std::fmt::Display| Status::internal(format!("failed to prepare exec: {error}"));
        let (plan, _) = inside.plan(&work.places).map_err(|error| internal(&error))?;
        let plan = compile::exec(&plan, &exec, &command, false).map_err(|error| invalid(&error))?;
        let frame = codec::encode(&plan).map_err(|error| internal(&error))?;
        let plan = berth_sys::memfd::sealed("exec-plan", &frame).map_err(|error| internal(&error))?;
        let null = berth_sys::fd::open("/dev/null", OFlags::RDONLY, Mode::empty()).map_err(|error| internal(&error))?;
        let pipes = || Ok::<_, io::Error>((berth_sys::fd::pipe()?, berth_sys::fd::pipe()?));
        let pipes = pipes().map_err(|error| internal(&error))?;
        let entry = cgroups::of(&work, &inside).map_err(|error| internal(&error))?;
        Ok::<_, Status>((plan, null, pipes, entry))
    });
    let (plan, null, ((stdout, stdout_end), (stderr, stderr_end)), entry) = prepared.await??;
    let Entry { handles, tasks } = &entry;
    let request = Request::Exec { exec: id.to_owned(), cgroup_tasks: *tasks, cgroup_v2: handles.v2.is_some() };
    let descriptors: Vec<_> = [plan.as_fd(), null.as_fd(), stdout_end.as_fd(), stderr_end.as_fd()]
        .into_iter()
        .chain(handles.tasks.iter().chain(&handles.v2).map(AsFd::as_fd))
        .collect();
    match shim.call(request, &descriptors).await {
        Ok(Reply::Started { .. }) => Ok((stdout, stderr)),
        Ok(_) => Err(Status::internal("the sandbox's shim answers out of turn")),
        Err(ShimError::Failed(failure)) => {
            let text = format!("failed to exec in container {:?}: {}", container.id, failure.message);
            Err(match failure.stage {
                Stage::UnknownTarget => Status::failed_precondition(text),
                _ => Status::unknown(text),
            })
        }
        Err(error) => Err(Status::unavailable(error.to_string())),
    }
}

/// Kills the command with all that it started, and waits for its end.
async fn end(shim: &Arc<Shim>, id: &str, ended: oneshot::Receiver<Exit>) {
    let _ = shim.order(Request::Signal { target: Target::Exec(id.to_owned()), signal: SIGKILL }, &[]).await;
    let _ = tokio::time::timeout(DEATH, ended).await;
}

/// What was read of a stream so far.
type Stream = Arc<Mutex<Vec<u8>>>;

/// Reads a stream to its end, and keeps its beginning.
async fn collect(stream: OwnedFd, kept: &Stream) {
    let Ok(()) = berth_sys::fd::set_nonblocking(stream.as_fd(), true) else { return };
    let Ok(stream) = watched(stream, Interest::READABLE) else { return };
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.async_io(Interest::READABLE, |fd| berth_sys::fd::read(fd.as_fd(), &mut buffer)).await {
            Ok(0) | Err(_) => return,
            Ok(read) => {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let room = OUTPUT_LIMIT - kept.len();
                kept.extend_from_slice(&buffer[..read.min(room)]);
            }
        }
    }
}
