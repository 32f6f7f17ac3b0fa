//! Waiting for a time of day.
//!
//! A timer of the runtime counts time in which the machine runs: it is late by a suspension, and by every correction of
//! the clock. The kernel's timer on the real clock is neither, and tells when the clock is set.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Where there is no such timer, the time is looked at this often.
const LOOK: Duration = Duration::from_secs(60);

/// Returns at `time` or when the clock is set, whichever is first: look again.
pub(crate) async fn wait_until(time: SystemTime) {
    if let Err(error) = timer(time).await {
        tracing::debug!(%error, "no timer on the real clock");
        let rest = time.duration_since(SystemTime::now()).unwrap_or_default();
        tokio::time::sleep(rest.min(LOOK)).await;
    }
}

async fn timer(time: SystemTime) -> io::Result<()> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    let value = Timespec { tv_sec: seconds, tv_nsec: since.subsec_nanos().max(1).into() };
    let never = Timespec { tv_sec: 0, tv_nsec: 0 };
    let fd: OwnedFd = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
    timerfd_settime(&fd, flags, &Itimerspec { it_interval: never, it_value: value })?;
    #[expect(deprecated, reason = "unsound for types that swap their descriptor; an OwnedFd does not")]
    let fd = AsyncFd::new(fd)?;
    // Readable when it fires, and when the clock is set (a read then fails with ECANCELED).
    let _ = fd.readable().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_not_early() {
        let time = SystemTime::now() + Duration::from_millis(30);
        wait_until(time).await;
        assert!(SystemTime::now() >= time);
        wait_until(UNIX_EPOCH).await;
    }
}
