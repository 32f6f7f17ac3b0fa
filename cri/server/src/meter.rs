//! What is remembered between two readings of the same counter or folder.
//!
//! Writable layers are walked by threads beside those who ask: one with millions of files must not keep the figures of all
//! others from their callers. Who asks gets the last figure, with its time, after a moment in which a small folder has been
//! walked.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use berth_image::{Store, Usage};

/// The shortest time between two samples: a shorter one says more of the scheduler than of the load. Whoever asks more
/// often gets the last answer again.
const SAMPLE: Duration = Duration::from_secs(1);

/// How old a measured folder may be.
const FRESH: Duration = Duration::from_secs(10);

/// A folder is walked for at most one part of this many of the time, however large it is.
const DUTY: u32 = 20;

/// How long whoever asks waits for a new figure, from when the walk was asked for: where there is none yet, and where
/// there is an older one.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(1));

/// How many folders are walked at a time.
const WALKERS: usize = 2;

/// One container's, or one sandbox's.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    rate: Mutex<Rate>,
    layer: Arc<Measured>,
}

#[derive(Debug, Default)]
struct Measured {
    slot: Mutex<Slot>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct Slot {
    layer: Option<Layer>,
    /// When the walk that is under way was asked for.
    asked: Option<Instant>,
}

/// The folders that are to be walked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Walks(Arc<Mutex<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    walkers: usize,
}

#[derive(Debug)]
struct Job {
    measured: Arc<Measured>,
    images: Store,
    container: String,
    ended: bool,
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

    /// Has what a container has written walked, unless that is under way or was done lately: at most every ten seconds, and
    /// one twentieth of the time where it is large; that of an ended container once.
    pub(crate) fn measure(&self, walks: &Walks, images: &Store, container: &str, ended: bool) {
        let mut slot = self.layer.slot();
        let now = Instant::now();
        if slot.asked.is_some() || slot.layer.is_some_and(|layer| layer.holds(now, ended)) {
            return;
        }
        slot.asked = Some(now);
        drop(slot);
        let measured = Arc::clone(&self.layer);
        walks.push(Job { measured, images: images.clone(), container: container.to_owned(), ended });
    }

    /// What was measured last; waits for a walk that was asked for a moment ago. Blocks.
    pub(crate) fn layer(&self) -> Option<Layer> {
        let mut slot = self.layer.slot();
        while let Some(asked) = slot.asked {
            let patience = if slot.layer.is_some() { PATIENCE.1 } else { PATIENCE.0 };
            let Some(left) = patience.checked_sub(asked.elapsed()) else { break };
            slot = self.layer.done.wait_timeout(slot, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        slot.layer
    }
}

impl Measured {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Walks {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job) {
        let mut queue = self.queue();
        queue.jobs.push_back(job);
        if queue.walkers < WALKERS {
            queue.walkers += 1;
            drop(queue);
            let walks = self.clone();
            let walker = thread::Builder::new().name("layers".to_owned()).spawn(move || walks.work());
            if let Err(error) = walker {
                tracing::warn!(%error, "layers are walked by who asks");
                self.work();
            }
        }
    }

    /// Walks until there is nothing to walk.
    fn work(&self) {
        loop {
            let mut queue = self.queue();
            let Some(job) = queue.jobs.pop_front() else {
                queue.walkers -= 1;
                return;
            };
            drop(queue);
            job.carry_out();
        }
    }
}

impl Job {
    fn carry_out(self) {
        let (at, begun) = (berth_sys::process::now(), Instant::now());
        let usage = self.images.snapshot_usage(&self.container);
        let mut slot = self.measured.slot();
        // A folder that can't be walked is shown as unknown, not as it once was.
        slot.layer = usage.ok().map(|usage| Layer { at, usage, begun, took: begun.elapsed(), last: self.ended });
        slot.asked = None;
        drop(slot);
        self.measured.done.notify_all();
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
    fn a_walk_that_takes_long_holds_nobody() {
        let meter = Meter::default();
        let layer = Layer { at: 7, usage: Usage::default(), begun: Instant::now(), took: Duration::ZERO, last: false };
        let long_ago = Instant::now().checked_sub(2 * PATIENCE.0).expect("the machine has been up for longer");
        *meter.layer.slot() = Slot { layer: Some(layer), asked: Some(long_ago) };
        assert_eq!(meter.layer().expect("the last figure").at, 7);
        // Whoever asks while it goes on waits a little, and then for nothing.
        *meter.layer.slot() = Slot { layer: None, asked: Some(Instant::now()) };
        assert!(meter.layer().is_none());
        *meter.layer.slot() = Slot { layer: None, asked: Some(Instant::now()) };
        let finish = || {
            *meter.layer.slot() = Slot { layer: Some(layer), asked: None };
            meter.layer.done.notify_all();
        };
        let seen = thread::scope(|scope| {
            let asking = scope.spawn(|| meter.layer());
            scope.spawn(finish);
            asking.join().expect("an answer")
        });
        assert_eq!(seen.expect("the new figure").at, 7);
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
