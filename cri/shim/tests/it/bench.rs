//! What a shim costs.

use std::fs;

use crate::place::{Place, children, name_of};

/// design.md, P4: a shim's private memory with its logger, in KiB.
const BAR: u64 = 512;

fn private(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup");
    let field = |line: &str| line.split_ascii_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
    rollup.lines().filter(|line| line.starts_with("Private_")).map(field).sum()
}

#[test]
fn a_shim_with_its_logger_stays_small() {
    let mut place = Place::new();
    let plan = place.plan("c1", "exec sleep 1000");
    place.start(&plan).expect("start");
    for n in 0..50 {
        let plan = place.plan(&format!("d{n}"), "seq 2000; exit 0");
        place.run(&plan);
    }
    let logger = children(place.shim).into_iter().find(|&pid| name_of(pid) == "berth-shim-log").expect("a logger");
    let (shim, logger) = (private(place.shim), private(logger));
    println!("private memory: shim {shim} KiB, logger {logger} KiB");
    assert!(shim + logger <= BAR, "shim {shim} KiB, logger {logger} KiB");
    place.signal("c1", 9);
    place.exit_of("c1");
}
