//! Between a client and a process.

use std::io;

use berth_stream::{Reader, Writer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::commands::DRAIN;
use crate::descriptor::Descriptor;

/// How much is read at once.
const PIECE: usize = 16 << 10;
/// How much is still read of an output that somebody holds open past its time: a pipe's content at its largest.
const REST: usize = 1 << 20;

/// How a direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The side that is read has no more.
    Complete,
    /// The client is gone.
    Gone,
}

/// Copies what a process prints to its client, or to nowhere. `over` says that the process has ended: what is in the pipe
/// is still read then, but those who have it open are not waited for any longer than [`DRAIN`].
pub(super) async fn output(mut from: Descriptor, to: Option<Writer>, over: &CancellationToken) -> End {
    let mut to = to;
    let mut buffer = vec![0; PIECE];
    let late = async {
        over.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::pin!(late);
    let timely = loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            () = &mut late => break false,
        };
        match read {
            Ok(0) | Err(_) => break true,
            Ok(length) => {
                if give(&mut to, &buffer[..length]).await.is_err() {
                    return End::Gone;
                }
            }
        }
    };
    let mut rest = if timely { 0 } else { REST };
    while rest > 0 {
        let Ok(length @ 1..) = from.read_now(&mut buffer) else { break };
        rest = rest.saturating_sub(length);
        if give(&mut to, &buffer[..length]).await.is_err() {
            return End::Gone;
        }
    }
    if let Some(mut to) = to
        && to.shutdown().await.is_err()
    {
        return End::Gone;
    }
    End::Complete
}

async fn give(to: &mut Option<Writer>, bytes: &[u8]) -> io::Result<()> {
    let Some(to) = to else { return Ok(()) };
    to.write_all(bytes).await?;
    to.flush().await
}

/// Copies what a client sends to a process, which may not read it (`None`) or stop reading: then it goes nowhere, and only
/// the client's end is waited for. The descriptor is closed at the end.
pub(super) async fn input(from: Reader, to: Option<Descriptor>) -> End {
    let (mut from, mut to) = (from, to);
    let mut buffer = vec![0; PIECE];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) => return End::Complete,
            Err(_) => return End::Gone,
            Ok(length) => {
                if let Some(process) = &mut to
                    && process.write_all(&buffer[..length]).await.is_err()
                {
                    to = None;
                }
            }
        }
    }
}
