//! Tasks: `pids.*`, the same in both versions.

use super::number;

/// Tasks (threads) of a cgroup and those below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tasks {
    pub now: u64,
    /// `None` is no limit.
    pub limit: Option<u64>,
}

pub(super) fn parse(current: &str, max: Option<&str>) -> Option<Tasks> {
    Some(Tasks { now: number(current)?, limit: max.and_then(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_is_no_limit() {
        assert_eq!(parse("3\n", Some("max\n")), Some(Tasks { now: 3, limit: None }));
        assert_eq!(parse("3\n", Some("100\n")), Some(Tasks { now: 3, limit: Some(100) }));
        assert_eq!(parse("", None), None);
    }
}
