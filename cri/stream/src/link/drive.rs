//! Moving a connection's bytes, for as long as a session lasts.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::io::{poll_read_buf, poll_write_buf};

use super::{KEPT, Link, State, UNSENT, wake};
use crate::backend::GRACE;

/// How often a silent client is asked for a sign of life. Whoever is really gone makes the kernel end the connection
/// then.
const PULSE: Duration = Duration::from_secs(60);
/// How long a client that takes nothing is waited for at the end.
const STALL: Duration = Duration::from_secs(30);
/// How long a client may take to close after everything was said.
const LINGER: Duration = Duration::from_secs(5);

/// The times that a session keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// For the client to open the streams that it needs.
    pub(crate) creation: Duration,
    /// Without a sign of the client.
    pub(crate) idle: Duration,
}

impl Pace {
    /// `kubernetes@v1.37.2:staging/src/k8s.io/cri-streaming/pkg/streaming/server.go#DefaultConfig`.
    pub(crate) const DEFAULT: Pace = Pace { creation: Duration::from_secs(30), idle: Duration::from_secs(4 * 60 * 60) };
}

/// Carries `link` over `io` while `work` runs, then says goodbye and sends what is left. When the client goes first,
/// `work` sees its streams end and has [`GRACE`] to come to its own end. Nothing is left when this future ends or is
/// dropped.
pub(crate) async fn converse<I, W>(link: Link, mut io: I, pace: Pace, work: W)
where
    I: AsyncRead + AsyncWrite + Unpin,
    W: Future<Output = ()>,
{
    let mut work = pin!(work);
    let done = tokio::select! {
        () = &mut work => true,
        () = drive(&link, &mut io, pace.idle) => false,
    };
    if !done {
        let _late = timeout(GRACE, work).await;
        return;
    }
    close(&link, &mut io).await;
}

/// Moves bytes until the client is gone, has neither said nor taken anything for too long, or breaks the protocol.
async fn drive<I: AsyncRead + AsyncWrite + Unpin>(link: &Link, io: &mut I, idle: Duration) {
    let mut pulse = interval_at(Instant::now() + PULSE, PULSE);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = (0, Instant::now());
    loop {
        tokio::select! {
            () = poll_fn(|context| link.poll_move(context, io)) => break,
            _ = pulse.tick() => {
                let mut state = link.lock();
                if state.signs != seen.0 {
                    seen = (state.signs, Instant::now());
                } else if seen.1.elapsed() >= idle {
                    tracing::debug!(?idle, "a streaming client was silent for too long");
                    break;
                } else if state.protocol.output().is_empty() {
                    state.protocol.ping();
                    state.asking = state.protocol.output().len();
                }
            }
        }
    }
    link.lock().lose();
}

/// Says goodbye, sends what is left while the client takes it, and waits a little for the client to close: a
/// connection that is closed with bytes unread takes the last words with it.
async fn close<I: AsyncRead + AsyncWrite + Unpin>(link: &Link, io: &mut I) {
    {
        let mut state = link.lock();
        if state.gone {
            return;
        }
        state.closing = true;
        state.protocol.goodbye();
    }
    let mut left = usize::MAX;
    while timeout(STALL, poll_fn(|context| link.poll_move(context, io))).await.is_err() {
        let now = link.lock().protocol.output().len();
        if now >= left {
            return;
        }
        left = now;
    }
    let farewell = async {
        io.shutdown().await?;
        let mut rest = BytesMut::with_capacity(KEPT);
        while poll_fn(|context| poll_read_buf(Pin::new(&mut *io), context, &mut rest)).await? > 0 {
            rest.clear();
        }
        std::io::Result::Ok(())
    };
    let _late = timeout(LINGER, farewell).await;
}

impl Link {
    /// Writes and reads as much as goes. Ready when the client is gone, or everything was sent at the end.
    fn poll_move<I: AsyncRead + AsyncWrite + Unpin>(&self, context: &mut Context<'_>, io: &mut I) -> Poll<()> {
        let mut state = self.lock();
        state.driver = Some(context.waker().clone());
        loop {
            if state.write(context, io).is_err() || state.gone {
                return Poll::Ready(());
            }
            if state.closing && state.protocol.output().is_empty() {
                return Poll::Ready(());
            }
            if !state.hungry() {
                return Poll::Pending;
            }
            state.input.reserve(KEPT);
            match poll_read_buf(Pin::new(&mut *io), context, &mut state.input) {
                Poll::Pending => {
                    // A quiet connection holds nothing.
                    if state.input.is_empty() {
                        state.input = BytesMut::new();
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => {}
            }
            if let Err(violation) = state.understand() {
                tracing::debug!(%violation, "a streaming client broke its protocol");
                return Poll::Ready(());
            }
        }
    }
}

impl State {
    fn understand(&mut self) -> Result<(), super::Violation> {
        while let Some(event) = self.protocol.receive(&mut self.input)? {
            self.happen(event);
        }
        Ok(())
    }

    /// Writes what goes. An error when the client is gone.
    fn write<I: AsyncWrite + Unpin>(&mut self, context: &mut Context<'_>, io: &mut I) -> std::io::Result<()> {
        let output = self.protocol.output();
        while !output.is_empty() {
            match poll_write_buf(Pin::new(&mut *io), context, output) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(std::io::ErrorKind::WriteZero.into()),
                Poll::Ready(result) => {
                    let sent = result?;
                    // Who takes output is there, whether he says anything or not; that pings go out says nothing.
                    let asking = self.asking.min(sent);
                    self.asking -= asking;
                    self.signs += u64::from(sent > asking);
                }
            }
        }
        if output.is_empty() && output.capacity() > KEPT {
            *output = BytesMut::new();
        }
        // TLS and the like keep bytes of their own.
        if let Poll::Ready(Err(error)) = Pin::new(&mut *io).poll_flush(context) {
            return Err(error);
        }
        if self.protocol.output().len() < UNSENT {
            for slot in self.slots.values_mut() {
                wake(&mut slot.writer);
            }
        }
        Ok(())
    }
}
