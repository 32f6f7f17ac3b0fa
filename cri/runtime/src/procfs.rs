//! What the host's procfs says of a process.

use std::fs;

/// A process's state and the moment of its start, in ticks since boot: with the number, this is its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) state: char,
    pub(crate) started: u64,
}

impl Stat {
    /// `None` where there is no such process.
    pub(crate) fn read(pid: i32) -> Option<Self> {
        parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Whether nothing is left of it but its status.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

fn parse(text: &str) -> Option<Stat> {
    // The name, in parentheses, may have anything in it.
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    Some(Stat { state: fields.next()?.chars().next()?, started: fields.nth(18)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_skipped() {
        let rest = "S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 2 3";
        assert_eq!(parse(&format!("7 (a) Z (b)) {rest}")), Some(Stat { state: 'S', started: 4242 }));
        assert_eq!(parse("7 (x"), None);
        let own = Stat::read(i32::try_from(std::process::id()).expect("a number")).expect("own");
        assert!(own.started > 0 && !own.has_ended());
    }
}
