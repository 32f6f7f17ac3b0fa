//! How long a failed thing waits before it is tried again.
//!
//! Crash back-off needs no memory of its own: each container instance carries, as an annotation, the delay that its own
//! failure will cost, so that a restarted agent goes on where its predecessor was.
//!
//! Source: `kubernetes@v1.37.2:pkg/kubelet/kuberuntime/kuberuntime_manager.go#doBackOff` and client-go's
//! `flowcontrol.Backoff` (initial 10 s, doubled to 300 s, forgotten after twice the maximum).

use crate::Moment;

/// Seconds after the second crash in a row.
pub const INITIAL: i64 = 10;
/// Seconds at most.
pub const MAXIMUM: i64 = 300;
/// An instance that lived so many seconds starts its successors' back-off anew.
pub const FORGOTTEN_AFTER: i64 = 2 * MAXIMUM;

/// The delay before the successor of an instance that carried `carried` seconds, was created at `created` and ended at
/// `finished`; 0 is at once.
pub fn delay(carried: i64, created: Moment, finished: Moment) -> i64 {
    if forgotten(created, finished) { 0 } else { carried.clamp(0, MAXIMUM) }
}

/// What that successor carries.
pub fn carried_next(carried: i64, created: Moment, finished: Moment) -> i64 {
    if carried <= 0 || forgotten(created, finished) { INITIAL } else { carried.saturating_mul(2).min(MAXIMUM) }
}

fn forgotten(created: Moment, finished: Moment) -> bool {
    finished > created.plus_seconds(FORGOTTEN_AFTER)
}

/// The delay after the `count`-th failure in a row (from 1): `initial` seconds doubled each time, to `maximum`.
pub fn doubled(initial: i64, maximum: i64, count: u32) -> i64 {
    let doublings = count.saturating_sub(1).min(30);
    initial.saturating_mul(1 << doublings).min(maximum)
}

/// A number of seconds as Go prints a duration: `10s`, `1m20s`, `5m0s`.
pub fn go_duration(seconds: i64) -> String {
    match seconds {
        s if s < 60 => format!("{s}s"),
        s if s < 3600 => format!("{}m{}s", s / 60, s % 60),
        s => format!("{}h{}m{}s", s / 3600, s % 3600 / 60, s % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crashes_in_a_row_wait_as_the_kubelet_does() {
        let (mut carried, mut now, mut delays) = (0, Moment(0), Vec::new());
        for _ in 0..9 {
            let created = now;
            let finished = created.plus_seconds(1);
            let wait = delay(carried, created, finished);
            delays.push(wait);
            carried = carried_next(carried, created, finished);
            now = finished.plus_seconds(wait);
        }
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn a_long_life_forgets() {
        let created = Moment(0);
        assert_eq!(delay(160, created, created.plus_seconds(600)), 160);
        assert_eq!(delay(160, created, created.plus_seconds(601)), 0);
        assert_eq!(carried_next(160, created, created.plus_seconds(601)), INITIAL);
    }

    #[test]
    fn doubling_is_capped() {
        let delays: Vec<i64> = (1..8).map(|n| doubled(10, 300, n)).collect();
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(doubled(1, 300, u32::MAX), 300);
    }

    #[test]
    fn durations_read_as_go_writes_them() {
        let texts: Vec<String> = [10, 20, 80, 160, 300, 3600].into_iter().map(go_duration).collect();
        assert_eq!(texts, ["10s", "20s", "1m20s", "2m40s", "5m0s", "1h0m0s"]);
    }
}
