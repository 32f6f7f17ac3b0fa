//! When to try again, and how long to wait before.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use crate::error::PullError;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);
/// A registry that asks for more than this is not waited for: the kubelet's own back-off is longer.
const LONGEST_ASKED: Duration = Duration::from_secs(30);

/// A failed try, and what the registry said about the next one.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: PullError,
    pub(crate) retry_after: Option<Duration>,
}

impl From<PullError> for Failure {
    fn from(error: PullError) -> Self {
        Self { error, retry_after: None }
    }
}

/// The tries of one request.
#[derive(Debug)]
pub(crate) struct Tries {
    most: u32,
    failed: u32,
}

impl Tries {
    pub(crate) fn new(most: u32) -> Self {
        Self { most, failed: 0 }
    }

    /// Something came of the last try: the next failure is counted as the first.
    pub(crate) fn progressed(&mut self) {
        self.failed = 0;
    }

    /// Waits for the next try, or returns the failure when there is to be none.
    pub(crate) async fn after(&mut self, failure: Failure) -> Result<(), PullError> {
        self.failed += 1;
        if self.failed >= self.most || !failure.error.is_transient() {
            return Err(failure.error);
        }
        let pause = pause(self.failed, failure.retry_after);
        tracing::debug!(error = %failure.error, failed = self.failed, ?pause, "try again");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// The pause after try number `attempt` (from 1): what the registry asked for, else doubling from 200 ms to 10 s, of
/// which up to half is left to chance so that nodes don't come back together.
fn pause(attempt: u32, asked: Option<Duration>) -> Duration {
    let doubled = FIRST.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(LONGEST);
    let least = asked.map_or(doubled / 2, |asked| asked.min(LONGEST_ASKED));
    least + (doubled / 2).mul_f64(chance())
}

/// A number from 0 to 1. The standard library seeds its hashers at random; spreading load needs no better source.
fn chance() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 40;
    f64::from(u32::try_from(bits).unwrap_or(0)) / f64::from(1u32 << 24)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_stay_bounded_and_obey_the_registry() {
        for attempt in 1..50 {
            let pause = pause(attempt, None);
            assert!(pause >= FIRST / 2 && pause <= LONGEST, "{attempt}: {pause:?}");
        }
        assert!(pause(1, Some(Duration::from_secs(7))) >= Duration::from_secs(7));
        assert!(pause(1, Some(Duration::from_secs(7000))) < LONGEST_ASKED + LONGEST);
    }
}
