//! Network interfaces of a pod, read where its shim lives: no namespace is entered for it.

use std::fs::File;
use std::io::Read;

use crate::sandbox::Sandbox;

/// A pod may make interfaces of its own; a line takes about 130 bytes.
const LIMIT: u64 = 1 << 20;

/// Counters of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) received: Counters,
    pub(crate) sent: Counters,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counters {
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    pub(crate) errors: u64,
    pub(crate) dropped: u64,
}

/// All but the loopback; `None` without a network of the pod's own, or without a shim.
pub(crate) fn of(sandbox: &Sandbox) -> Option<Vec<Interface>> {
    if !sandbox.has_network() {
        return None;
    }
    let shim = sandbox.shim()?;
    let mut text = String::new();
    File::open(format!("/proc/{}/net/dev", shim.pid)).ok()?.take(LIMIT).read_to_string(&mut text).ok()?;
    // Had it ended, the number might have been another process'.
    (!shim.ends_within(0)).then(|| parse(&text))
}

/// proc_pid_net(5): two lines of titles, then `name: ` with eight numbers received and eight sent.
fn parse(text: &str) -> Vec<Interface> {
    let line = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers = numbers.split_whitespace().map(|number| number.parse().ok()).collect::<Option<Vec<u64>>>()?;
        let counters = |at: usize| {
            let [bytes, packets, errors, dropped] = *numbers.get(at..at + 4)? else { return None };
            Some(Counters { bytes, packets, errors, dropped })
        };
        Some(Interface { name: name.trim().to_owned(), received: counters(0)?, sent: counters(8)? })
    };
    text.lines().skip(2).filter_map(line).filter(|interface| interface.name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_an_interface() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
lo:    3193      29    0    0    0     0          0         0     3193      29    0    0    0     0       0          0\n  \
eth0: 201613092   11358    1    2    0     0          0         0   842284    8756    3    4    0     0       0          0\n  \
bad: 1 2\n";
        let received = Counters { bytes: 201_613_092, packets: 11_358, errors: 1, dropped: 2 };
        let sent = Counters { bytes: 842_284, packets: 8756, errors: 3, dropped: 4 };
        assert_eq!(parse(text), [Interface { name: "eth0".to_owned(), received, sent }]);
        assert_eq!(parse(""), []);
    }
}
