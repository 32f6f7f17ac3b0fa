//! When a certificate is renewed, and by which credentials: decided from times alone.

use std::time::{Duration, SystemTime};

use super::Pair;

/// From when a certificate was ours until when it is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) start: SystemTime,
    pub(crate) end: SystemTime,
}

impl Life {
    /// A signer dates certificates back by minutes, so that clocks may differ
    /// (`kubernetes@v1.37.2:pkg/controller/certificates/signer/signer.go`, 5 min). For one that is good for minutes only,
    /// that would put 70 to 90 % of its life before the moment it came: life starts when it came.
    pub(crate) fn of(pair: &Pair) -> Self {
        let start = pair.obtained.map_or(pair.not_before(), |at| at.max(pair.not_before()));
        Self { start: start.min(pair.not_after()), end: pair.not_after() }
    }

    /// When to ask for the next one: between 70 and 90 % of its life; `fraction` (0 to 1) says where between, so that
    /// nodes that joined together don't ask together
    /// (`k8s.io/client-go@v0.37.2:util/certificate/certificate_manager.go#jitteryDuration`).
    pub(crate) fn renewal(&self, fraction: f64) -> SystemTime {
        let total = self.end.duration_since(self.start).unwrap_or_default();
        self.start + total.mul_f64(0.7 + 0.2 * fraction.clamp(0.0, 1.0))
    }
}

/// What to do about a certificate at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing until then.
    Keep { until: SystemTime },
    /// Ask for the next one as who we are.
    Renew,
    /// Ask with the bootstrap credentials.
    Bootstrap,
}

/// `life`: of the certificate that is there; `renew_at`: when it is to be renewed, `None` when it is not
/// (`rotateCertificates: false`).
pub(crate) fn step(life: Option<Life>, renew_at: Option<SystemTime>, now: SystemTime) -> Step {
    match (life, renew_at) {
        (None, _) => Step::Bootstrap,
        (Some(life), _) if now >= life.end => Step::Bootstrap,
        (Some(life), None) => Step::Keep { until: life.end },
        (Some(life), Some(at)) if now < at => Step::Keep { until: at.min(life.end) },
        (Some(_), Some(_)) => Step::Renew,
    }
}

/// How long to wait after so many failures in a row: 2 s, doubled up to 32 s; `fraction` (0 to 1) adds up to a tenth.
pub(crate) fn pause(failures: u32, fraction: f64) -> Duration {
    let seconds = 1_u64 << failures.clamp(1, 5);
    Duration::from_secs(seconds).mul_f64(1.0 + 0.1 * fraction.clamp(0.0, 1.0))
}

/// Where between: anything that differs from node to node and from time to time.
pub(crate) fn fraction() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(0_u8) >> 11;
    // 53 bits are what a double holds exactly.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let fraction = random as f64 / (1_u64 << 53) as f64;
    fraction
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::super::pair::tests::pair;
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn renewal_is_at_70_to_90_percent() {
        let life = Life { start: at(1000), end: at(2000) };
        assert_eq!(life.renewal(0.0), at(1700));
        assert_eq!(life.renewal(1.0), at(1900));
        for _ in 0..100 {
            let at_some = life.renewal(fraction());
            assert!((at(1700)..=at(1900)).contains(&at_some));
        }
        assert!((0..100).map(|_| life.renewal(fraction())).collect::<std::collections::BTreeSet<_>>().len() > 10);
    }

    #[test]
    fn a_certificate_dated_back_lives_from_when_it_came() {
        let mut pair = pair(&[], 420);
        let issued = pair.not_before() + Duration::from_secs(300);
        assert!(Life::of(&pair).renewal(0.0) < issued, "by its dates alone it is renewed before it comes");
        pair.obtained = Some(issued);
        assert_eq!(Life::of(&pair).renewal(0.0), issued + Duration::from_secs(84));
        // A file with a wrong time.
        pair.obtained = Some(pair.not_after() + Duration::from_secs(1));
        assert_eq!(Life::of(&pair).renewal(0.0), pair.not_after());
        pair.obtained = Some(UNIX_EPOCH);
        assert_eq!(Life::of(&pair).start, pair.not_before());
    }

    #[test]
    fn what_is_there_decides_which_credentials_ask() {
        let life = Life { start: at(1000), end: at(2000) };
        let cases = [
            (None, None, 0, Step::Bootstrap),
            (None, Some(1800), 0, Step::Bootstrap),
            (Some(life), Some(1800), 1799, Step::Keep { until: at(1800) }),
            (Some(life), Some(1800), 1800, Step::Renew),
            (Some(life), Some(1800), 1999, Step::Renew),
            (Some(life), Some(1800), 2000, Step::Bootstrap),
            (Some(life), None, 1999, Step::Keep { until: at(2000) }),
            (Some(life), None, 2000, Step::Bootstrap),
            (Some(life), Some(9999), 1999, Step::Keep { until: at(2000) }),
        ];
        for (life, renew_at, now, expected) in cases {
            assert_eq!(step(life, renew_at.map(at), at(now)), expected, "{life:?} {renew_at:?} {now}");
        }
    }

    #[test]
    fn pauses_grow_to_half_a_minute() {
        let pauses: Vec<_> = (0..8).map(|failures| pause(failures, 0.0).as_secs()).collect();
        assert_eq!(pauses, [2, 2, 4, 8, 16, 32, 32, 32]);
        assert_eq!(pause(5, 1.0), Duration::from_millis(35_200));
    }
}
