//! v1 meanings of limits in the units of v2, as runc converts them.

use crate::error::CgroupError;

/// cpu.weight of cpu.shares. Quadratic in log2(shares) so that the least, the default and the greatest meet: 2 -> 1,
/// 1024 -> 100, 262144 -> 10000 (opencontainers/cgroups, `ConvertCPUSharesToCgroupV2Value`).
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the result lies between 1 and 10000")]
#[expect(clippy::cast_precision_loss, reason = "shares are at most 262144")]
pub fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10_f64.powf(exponent).ceil() as u64
        }
    }
}

/// cpu.max; `None` leaves it.
pub(crate) fn cpu_max(quota: Option<i64>, period: Option<u64>) -> Option<String> {
    if quota.is_none() && period.is_none() {
        return None;
    }
    let quota = quota.filter(|quota| *quota > 0).map_or_else(|| "max".to_owned(), |quota| quota.to_string());
    Some(format!("{quota} {}", period.unwrap_or(100_000)))
}

/// A number of bytes or processes; negative is `max`.
pub(crate) fn max(limit: i64) -> String {
    if limit < 0 { "max".to_owned() } else { limit.to_string() }
}

/// memory.swap.max of the limits of memory, and of memory and swap together; `None` leaves it.
///
/// # Errors
/// Two that make no sense together.
pub fn swap_max(memory: Option<i64>, both: Option<i64>) -> Result<Option<String>, CgroupError> {
    let unsupported = |reason: &str| Err(CgroupError::Unsupported { what: "memory_swap", reason: reason.to_owned() });
    match (memory, both) {
        // No limit of memory means none of swap either, unless one is named.
        (Some(..=-1), None | Some(..=-1)) => Ok(Some("max".to_owned())),
        (_, None) => Ok(None),
        (_, Some(..=-1)) => Ok(Some("max".to_owned())),
        (None | Some(..=-1), Some(_)) => unsupported("on cgroup v2 it needs a memory limit beside it"),
        (Some(memory), Some(both)) if both < memory => unsupported("it is below the memory limit"),
        (Some(memory), Some(both)) => Ok(Some((both - memory).to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        for (shares, expected) in [(0, 1), (2, 1), (100, 17), (102, 17), (1024, 100), (2048, 174), (262_144, 10_000)] {
            assert_eq!(weight(shares), expected, "{shares} shares");
        }
    }

    #[test]
    fn quota_and_period_become_one_line() {
        assert_eq!(cpu_max(None, None), None);
        assert_eq!(cpu_max(Some(5000), None).as_deref(), Some("5000 100000"));
        assert_eq!(cpu_max(Some(-1), Some(20_000)).as_deref(), Some("max 20000"));
        assert_eq!(cpu_max(None, Some(20_000)).as_deref(), Some("max 20000"));
    }

    #[test]
    fn swap_is_what_is_left_of_both() {
        let swap = |memory, both| swap_max(memory, both).ok().flatten();
        assert_eq!(swap(Some(100), Some(100)).as_deref(), Some("0"));
        assert_eq!(swap(Some(100), Some(150)).as_deref(), Some("50"));
        assert_eq!(swap(Some(100), Some(-1)).as_deref(), Some("max"));
        assert_eq!(swap(Some(-1), None).as_deref(), Some("max"));
        assert_eq!(swap(Some(100), None), None);
        assert!(swap_max(None, Some(5)).is_err() && swap_max(Some(9), Some(5)).is_err());
    }
}
