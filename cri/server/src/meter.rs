//! What is remembered between two readings of the same counter or folder.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use berth_image::{Store, Usage};

/// The shortest time between two samples: a shorter one says more of the scheduler than of the load. Whoever asks more
/// often gets the last answer again.
const SAMPLE: Duration = Duration::from_secs(1);

/// How old a measured folder may be.
const FRESH: Duration = Duration::from_secs(10);

/// A folder is walked for at most one part of this many of the time, however large it is.
const DUTY: u32 = 20;

/// One container's, or one sandbox's.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    rate: Mutex<Rate>,
    layer: Mutex<Option<Layer>>,
}

/// The last sample of a CPU counter, and the rate that it gave.
#[derive(Debug, Default)]
struct Rate {
    last: Option<(Instant, u64)>,
    nano_cores: Option<u64>,
}

/// A writable layer as it was measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer {
    /// Nanoseconds since the epoch.
    pub(crate) at: i64,
    pub(crate) usage: Usage,
    begun: Instant,
    took: Duration,
    /// Nobody wrote to it any more.
    last: bool,
}

impl Meter {
    /// CPU nanoseconds per second between the sample before and this one; `None` for the first.
    pub(crate) fn nano_cores(&self, usage_ns: u64) -> Option<u64> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).sample(Instant::now(), usage_ns)
    }

    /// What a container has written, walked at most every ten seconds, and one twentieth of the time where it is
    /// large; that of an ended container is walked once. Blocks; whoever asks meanwhile waits for the same walk.
    pub(crate) fn layer(&self, images: &Store, container: &str, ended: bool) -> Option<Layer> {
        let mut slot = self.layer.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        if let Some(layer) = slot.filter(|layer| layer.holds(begun, ended)) {
            return Some(layer);
        }
        let at = berth_sys::process::now();
        // A folder that can't be walked is shown as unknown, not as it once was.
        *slot = images.snapshot_usage(container).ok().map(|usage| Layer {
            at,
            usage,
            begun,
            took: begun.elapsed(),
            last: ended,
        });
        *slot
    }
}

impl Rate {
    fn sample(&mut self, now: Instant, usage_ns: u64) -> Option<u64> {
        let Some((before, used)) = self.last else {
            self.last = Some((now, usage_ns));
            return None;
        };
        let passed = now.saturating_duration_since(before);
        if passed >= SAMPLE {
            self.last = Some((now, usage_ns));
            // A counter that went back is another one: the cgroup was made anew.
            let used = usage_ns.checked_sub(used);
            let rate = used.map(|used| u128::from(used) * 1_000_000_000 / passed.as_nanos());
            self.nano_cores = rate.and_then(|rate| u64::try_from(rate).ok());
        }
        self.nano_cores
    }
}

impl Layer {
    fn holds(&self, now: Instant, ended: bool) -> bool {
        self.last || !ended && now.saturating_duration_since(self.begun) < FRESH.max(self.took * DUTY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_two_samples() {
        let begin = Instant::now();
        let after = |ms| begin + Duration::from_millis(ms);
        let mut rate = Rate::default();
        assert_eq!(rate.sample(begin, 5_000_000_000), None);
        assert_eq!(rate.sample(after(200), 5_100_000_000), None, "too soon");
        assert_eq!(rate.sample(after(2000), 6_000_000_000), Some(500_000_000), "half a core");
        assert_eq!(rate.sample(after(2100), 6_100_000_000), Some(500_000_000), "too soon: as before");
        assert_eq!(rate.sample(after(4000), 6_000_000_000), Some(0), "idle is a number");
        assert_eq!(rate.sample(after(6000), 1), None, "another counter");
        assert_eq!(rate.sample(after(7000), 1_000_000_001), Some(1_000_000_000));
    }

    #[test]
    fn a_large_layer_is_walked_less_often() {
        let begun = Instant::now();
        let layer = |took, last| Layer { at: 1, usage: Usage::default(), begun, took, last };
        let after = |seconds| begun + Duration::from_secs(seconds);
        let small = layer(Duration::from_millis(1), false);
        assert!(small.holds(after(9), false) && !small.holds(after(10), false));
        assert!(!small.holds(after(1), true), "it has ended since: once more");
        let large = layer(Duration::from_secs(3), false);
        assert!(large.holds(after(59), false) && !large.holds(after(60), false));
        assert!(layer(Duration::ZERO, true).holds(after(100_000), true));
    }
}
