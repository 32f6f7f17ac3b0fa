//! Time as it is handed in.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

const SECOND: i64 = 1_000_000_000;

/// A point in time: nanoseconds since the Unix epoch, as CRI writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub i64);

impl Moment {
    /// Later by so many seconds.
    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(SECOND)))
    }

    /// Later by so many milliseconds.
    #[must_use]
    pub fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis.saturating_mul(SECOND / 1000)))
    }

    /// Nanoseconds from `earlier` until this moment; negative when it lies before.
    #[must_use]
    pub fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole seconds from `now` until this moment, rounded up; 0 when it is past.
    #[must_use]
    pub fn seconds_from(self, now: Self) -> i64 {
        let left = self.since(now);
        if left <= 0 { 0 } else { (left - 1) / SECOND + 1 }
    }

    /// As the API writes it: whole seconds.
    #[must_use]
    pub fn to_api(self) -> Time {
        Time(Timestamp::from_second(self.0.div_euclid(SECOND)).unwrap_or(Timestamp::UNIX_EPOCH))
    }

    /// From the API.
    #[must_use]
    pub fn from_api(time: &Time) -> Self {
        Self(i64::try_from(time.0.as_nanosecond()).unwrap_or(if time.0.as_second() < 0 { i64::MIN } else { i64::MAX }))
    }
}
