//! CPU time: `cpuacct.*` and `cpu.stat` of v1, `cpu.stat` of v2.

use super::{keyed, number};

/// CPU time in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cpu {
    pub usage_ns: u64,
    pub user_ns: Option<u64>,
    pub system_ns: Option<u64>,
    /// Periods of a quota so far; `None` without the cpu controller.
    pub periods: Option<u64>,
    /// Those in which it was held back.
    pub throttled_periods: Option<u64>,
    pub throttled_ns: Option<u64>,
}

/// All files count nanoseconds.
pub(super) fn v1(usage: &str, user: Option<&str>, system: Option<&str>, stat: Option<&str>) -> Option<Cpu> {
    let stat = |key| keyed(stat?, key);
    Some(Cpu {
        usage_ns: number(usage)?,
        user_ns: user.and_then(number),
        system_ns: system.and_then(number),
        periods: stat("nr_periods"),
        throttled_periods: stat("nr_throttled"),
        throttled_ns: stat("throttled_time"),
    })
}

/// Microseconds.
pub(super) fn v2(stat: &str) -> Option<Cpu> {
    let ns = |key| keyed(stat, key).map(|us| us.saturating_mul(1000));
    Some(Cpu {
        usage_ns: ns("usage_usec")?,
        user_ns: ns("user_usec"),
        system_ns: ns("system_usec"),
        periods: keyed(stat, "nr_periods"),
        throttled_periods: keyed(stat, "nr_throttled"),
        throttled_ns: ns("throttled_usec"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_counts_nanoseconds() {
        let stat = "nr_periods 40\nnr_throttled 12\nthrottled_time 734000000\nnr_bursts 0\nburst_time 0\n";
        let cpu = v1("2519436701\n", Some("2001000000\n"), Some("518436701\n"), Some(stat)).expect("usage");
        let expected = Cpu {
            usage_ns: 2_519_436_701,
            user_ns: Some(2_001_000_000),
            system_ns: Some(518_436_701),
            periods: Some(40),
            throttled_periods: Some(12),
            throttled_ns: Some(734_000_000),
        };
        assert_eq!(cpu, expected);
        // A kernel before 4.7, without the cpu controller.
        let old = v1("7\n", None, None, None).expect("usage");
        assert_eq!(old, Cpu { usage_ns: 7, ..Cpu::default() });
    }

    #[test]
    fn v2_counts_microseconds() {
        let stat = "usage_usec 5217\nuser_usec 3000\nsystem_usec 2217\nnice_usec 0\ncore_sched.force_idle_usec 0\n\
                    nr_periods 9\nnr_throttled 4\nthrottled_usec 150\nnr_bursts 0\nburst_usec 0\n";
        let cpu = v2(stat).expect("usage");
        assert_eq!((cpu.usage_ns, cpu.user_ns, cpu.system_ns), (5_217_000, Some(3_000_000), Some(2_217_000)));
        assert_eq!((cpu.periods, cpu.throttled_periods, cpu.throttled_ns), (Some(9), Some(4), Some(150_000)));
        let plain = v2("usage_usec 1\nuser_usec 1\nsystem_usec 0\n").expect("usage");
        assert_eq!((plain.periods, plain.throttled_ns), (None, None), "nobody counts without the controller");
        assert_eq!(v2(""), None);
    }
}
