//! ExecSync: a command in a running container, with what it prints. Probes are made of it. A command with a limit runs on
//! when its caller goes away, as all work does; one without would run for ever, and is killed then.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_cri_proto::v1::{ExecSyncRequest, ExecSyncResponse};
use berth_guard::Guard;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::commands::{Command, DRAIN, Ends, Stdio};
use crate::descriptor::Descriptor;
use crate::runtime::Runtime;

/// What is kept of both streams together, so that the answer fits into a message; the rest is read and dropped
/// (CVE-2022-31030).
const OUTPUT_LIMIT: usize = (16 << 20) - 1024;

/// How long a command may still take when the service ends. It is not killed then, and nobody hears of its end: restarts
/// disturb no container.
const ENDING: Duration = Duration::from_secs(2);

pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: ExecSyncRequest,
    caller_gone: CancellationToken,
) -> Result<ExecSyncResponse, Status> {
    let container = runtime.container(&request.container_id)?;
    let timeout = u64::try_from(request.timeout).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
    let stdio = Stdio::Pipes { input: false };
    let (mut command, ends) = Command::start(runtime, &container, request.cmd, stdio).await?;
    let Ends::Pipes { output: stdout, error: stderr, .. } = ends else {
        return Err(Status::internal("a command has a terminal that it was not to have"));
    };
    // Both are read while the command runs, or it would wait for us.
    let (out, err) = (Stream::default(), Stream::default());
    let (to_out, to_err) = (Arc::clone(&out), Arc::clone(&err));
    let mut output = tokio::spawn(async move { tokio::join!(collect(stdout, &to_out), collect(stderr, &to_err)) });
    let late = async {
        match timeout {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let abandoned = async {
        match timeout {
            None => caller_gone.cancelled().await,
            Some(_) => std::future::pending().await,
        }
    };
    let ending = async {
        runtime.sessions.over().await;
        tokio::time::sleep(ENDING).await;
    };
    let exit = tokio::select! {
        exit = command.ended() => exit?,
        () = late => {
            command.kill().await;
            output.abort();
            return Err(Status::deadline_exceeded(format!(
                "failed to exec in container {:?}: the command did not end within {} s and was killed",
                container.id, request.timeout
            )));
        }
        () = abandoned => {
            output.abort();
            if runtime.sessions.is_over() {
                return Err(unheard(&container.id));
            }
            tracing::debug!(container = container.id, "a command whose caller has gone is killed");
            command.kill().await;
            return Err(Status::cancelled("the caller has gone; the command was killed"));
        }
        () = ending => {
            output.abort();
            return Err(unheard(&container.id));
        }
    };
    if tokio::time::timeout(DRAIN, &mut output).await.is_err() {
        output.abort();
        tracing::debug!(container = container.id, "output of a command is still held open after its end");
    }
    let taken = |stream: &Stream| std::mem::take(&mut *stream.lock().unwrap_or_else(PoisonError::into_inner));
    let (mut stdout, mut stderr) = (taken(&out), taken(&err));
    // Where both are long, each gets a half.
    if Guard::OutputBounded.stands() {
        stdout.truncate(OUTPUT_LIMIT - stderr.len().min(OUTPUT_LIMIT / 2));
        stderr.truncate(OUTPUT_LIMIT - stdout.len());
    }
    Ok(ExecSyncResponse { stdout, stderr, exit_code: exit.code })
}

fn unheard(container: &str) -> Status {
    Status::unavailable(format!(
        "the container runtime is ending; the command in container {container:?} runs on unheard"
    ))
}

/// What was read of a stream so far.
type Stream = Arc<Mutex<Vec<u8>>>;

/// Reads a stream to its end, and keeps its beginning.
async fn collect(stream: OwnedFd, kept: &Stream) {
    let Ok(mut stream) = Descriptor::reader(stream) else { return };
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let room = if Guard::OutputBounded.stands() { OUTPUT_LIMIT - kept.len() } else { usize::MAX };
                kept.extend_from_slice(&buffer[..read.min(room)]);
            }
        }
    }
}
