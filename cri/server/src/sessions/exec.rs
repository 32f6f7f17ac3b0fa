//! Exec: a command in a running container, joined to its client.

use std::convert::Infallible;
use std::future::pending;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use berth_plan::message::Exit;
use berth_stream::{ExecRequest, Failure, Reader, Streams, TerminalSize};
use berth_sys::terminal;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::copy::{self, End};
use super::{failure, io_failure};
use crate::commands::{Command, Ends, Stdio};
use crate::descriptor::Descriptor;
use crate::runtime::Runtime;

pub(super) async fn run(runtime: &Arc<Runtime>, request: ExecRequest, streams: Streams) -> Result<i32, Failure> {
    let container = runtime.container(&request.container).map_err(failure)?;
    let stdio = if request.tty { Stdio::Terminal } else { Stdio::Pipes { input: streams.stdin.is_some() } };
    let (command, ends) = Command::start(runtime, &container, request.command, stdio).await.map_err(failure)?;
    match ends {
        Ends::Pipes { input, output, error } => pipes(command, input, [output, error], streams).await,
        Ends::Terminal(master) => on_terminal(command, master, streams).await,
    }
}

async fn pipes(
    mut command: Command,
    input: Option<OwnedFd>,
    output: [OwnedFd; 2],
    streams: Streams,
) -> Result<i32, Failure> {
    let Streams { stdin, stdout, stderr, .. } = streams;
    let watch = io_failure("watch the command's output");
    let [output, error] = output.map(Descriptor::reader);
    let (output, error) = (output.map_err(&watch)?, error.map_err(&watch)?);
    let input = input.map(Descriptor::writer).transpose().map_err(&watch)?;
    let over = CancellationToken::new();
    let ends = async {
        let exit = command.ended().await;
        over.cancel();
        exit
    };
    let (exit, _, _) = tokio::select! {
        done = async { tokio::join!(ends, copy::output(output, stdout, &over), copy::output(error, stderr, &over)) } => done,
        never = feed(stdin, input) => match never {},
    };
    exit.map(|exit| exit.code).map_err(failure)
}

/// The client's input, to its end; its end is no reason to end the session.
async fn feed(from: Option<Reader>, to: Option<Descriptor>) -> Infallible {
    if let Some(from) = from {
        copy::input(from, to).await;
    }
    pending().await
}

async fn on_terminal(mut command: Command, master: OwnedFd, streams: Streams) -> Result<i32, Failure> {
    let exit = match serve_terminal(&mut command, master, streams).await? {
        Some(exit) => exit,
        // The client is gone and the terminal closed, which hangs up: what the command makes of that is its own affair.
        None => command.ended().await,
    };
    exit.map(|exit| exit.code).map_err(failure)
}

/// How the command ended, or `None` when its client left before. The master is closed in either case.
async fn serve_terminal(
    command: &mut Command,
    master: OwnedFd,
    streams: Streams,
) -> Result<Option<Result<Exit, Status>>, Failure> {
    let Streams { stdin, stdout, resize, .. } = streams;
    let watch = io_failure("watch the command's terminal");
    let another = || master.try_clone().map_err(&watch);
    let input = Descriptor::writer(another()?).map_err(&watch)?;
    let output = Descriptor::reader(another()?).map_err(&watch)?;
    let over = CancellationToken::new();
    let ends = async {
        let exit = command.ended().await;
        over.cancel();
        exit
    };
    let session = async {
        let shown = copy::output(output, stdout, &over);
        tokio::pin!(ends, shown);
        tokio::select! {
            exit = &mut ends => {
                shown.await;
                Some(exit)
            }
            end = &mut shown => match end {
                End::Gone => None,
                End::Complete => Some(ends.await),
            }
        }
    };
    tokio::select! {
        outcome = session => Ok(outcome),
        () = client_leaves(stdin, input) => Ok(None),
        never = follow_size(&master, resize) => match never {},
    }
}

/// Types the client's input until the client is gone. The end of input alone is no reason to hang up.
async fn client_leaves(from: Option<Reader>, to: Descriptor) {
    let Some(from) = from else { return pending().await };
    match copy::input(from, Some(to)).await {
        End::Gone => {}
        End::Complete => pending().await,
    }
}

/// Gives a terminal the sizes that the client's has, for ever.
pub(super) async fn follow_size(master: &OwnedFd, sizes: Option<mpsc::Receiver<TerminalSize>>) -> Infallible {
    if let Some(mut sizes) = sizes {
        while let Some(TerminalSize { width, height }) = sizes.recv().await {
            if let Err(error) = terminal::resize(master, width, height) {
                tracing::debug!(%error, width, height, "a terminal is not resized");
            }
        }
    }
    pending().await
}
