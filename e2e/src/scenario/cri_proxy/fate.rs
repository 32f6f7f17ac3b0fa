//! What becomes of a call on its way.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Per cent of the calls whose connection is cut, by the place of the cut, and whose answer is held back.
const BEFORE: u32 = 3;
const WITHIN_REQUEST: u32 = 2;
const AFTER: u32 = 7;
const WITHIN_ANSWER: u32 = 4;
const HELD: u32 = 4;
/// Milliseconds: how long a cut after a request's delivery, or an answer that is held back, may wait.
const SOON: u64 = 20;
const LATE: u64 = 250;

/// What becomes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Deliver,
    /// The connection is cut before a byte of the request is delivered.
    CutBefore,
    /// Half of the request's message is delivered.
    CutRequest,
    /// The server has read the request and has this long; its answer is lost, also when it comes earlier.
    CutAfter(Duration),
    /// So many frames of the answer come through, and half of the next one.
    CutAnswer(usize),
    /// The answer comes this much later.
    Hold(Duration),
}

impl Fate {
    /// What is counted, whatever its figures.
    fn name(self) -> &'static str {
        match self {
            Self::Deliver => "delivered",
            Self::CutBefore => "cut before the request",
            Self::CutRequest => "cut within the request",
            Self::CutAfter(_) => "cut before the answer",
            Self::CutAnswer(_) => "cut within the answer",
            Self::Hold(_) => "held back",
        }
    }
}

/// Deals fates and counts them. The same seed deals the same ones in the same order; which call gets which is up to the
/// scheduler.
#[derive(Debug)]
pub(super) struct Fates(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None` delivers everything.
    dice: Option<fastrand::Rng>,
    /// Those of the next calls.
    forced: VecDeque<Fate>,
    dealt: BTreeMap<&'static str, usize>,
}

impl Fates {
    pub(super) fn by_dice(seed: u64) -> Self {
        Self::new(Some(fastrand::Rng::with_seed(seed)))
    }

    /// Delivers whatever is not forced.
    pub(super) fn quiet() -> Self {
        Self::new(None)
    }

    fn new(dice: Option<fastrand::Rng>) -> Self {
        Self(Mutex::new(Inner { dice, forced: VecDeque::new(), dealt: BTreeMap::new() }))
    }

    /// The next call has this one.
    pub(super) fn force(&self, fate: Fate) {
        self.inner().forced.push_back(fate);
    }

    /// The next call's.
    pub(super) fn deal(&self) -> Fate {
        let mut inner = self.inner();
        let fate = match (inner.forced.pop_front(), &mut inner.dice) {
            (Some(fate), _) => fate,
            (None, Some(dice)) => throw(dice),
            (None, None) => Fate::Deliver,
        };
        *inner.dealt.entry(fate.name()).or_default() += 1;
        fate
    }

    /// How often each was dealt.
    pub(super) fn dealt(&self) -> BTreeMap<&'static str, usize> {
        self.inner().dealt.clone()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn throw(dice: &mut fastrand::Rng) -> Fate {
    let mut left = dice.u32(0..100);
    let mut hit = |part: u32| match left.checked_sub(part) {
        None => true,
        Some(rest) => {
            left = rest;
            false
        }
    };
    if hit(BEFORE) {
        Fate::CutBefore
    } else if hit(WITHIN_REQUEST) {
        Fate::CutRequest
    } else if hit(AFTER) {
        Fate::CutAfter(moment(dice))
    } else if hit(WITHIN_ANSWER) {
        // An answer has three frames: head, message, trailers.
        Fate::CutAnswer(dice.usize(0..3))
    } else if hit(HELD) {
        Fate::Hold(moment(dice))
    } else {
        Fate::Deliver
    }
}

/// At once, soon or late, each as likely: what a call does takes from microseconds to tenths of seconds.
pub(super) fn moment(dice: &mut fastrand::Rng) -> Duration {
    let milliseconds = match dice.u32(0..3) {
        0 => 0,
        1 => dice.u64(0..SOON),
        _ => dice.u64(SOON..LATE),
    };
    Duration::from_millis(milliseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_deals_the_same_and_all_kinds() {
        let (one, two) = (Fates::by_dice(7), Fates::by_dice(7));
        for _ in 0..2000 {
            assert_eq!(one.deal(), two.deal());
        }
        let dealt = one.dealt();
        assert_eq!(dealt.len(), 6, "{dealt:?}");
        assert!(dealt["delivered"] > 1400, "{dealt:?}");
    }

    #[test]
    fn a_forced_fate_is_the_next_ones() {
        let fates = Fates::quiet();
        fates.force(Fate::CutBefore);
        assert_eq!((fates.deal(), fates.deal()), (Fate::CutBefore, Fate::Deliver));
    }
}
