//! What a shim costs.

use std::fs;
use std::os::fd::AsFd;
use std::time::Instant;

use berth_plan::container::Exec;
use berth_plan::message::Event;

use crate::place::{Place, logger};

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
    // Output without lines, clients that come and go, and terminals cost nothing that stays.
    let endless = place.plan("endless", "head -c 16m /dev/zero");
    place.run(&endless);
    for n in 0..200 {
        let attached = place.attach("c1", false, true, true).expect("attach");
        drop(attached);
        let mut exec = Exec {
            id: format!("e{n}"),
            container: "c1".to_owned(),
            delegate: None,
            user: None,
            process: crate::place::process(&["/usr/bin/true"]),
        };
        exec.process.terminal = true;
        place.exec_on_terminal(&exec).expect("exec");
        let Event::ExecExited { .. } = place.client.event() else { panic!("an exec's end") };
    }
    let logger = logger(place.shim);
    let (shim, logger) = (private(place.shim), private(logger));
    println!("private memory: shim {shim} KiB, logger {logger} KiB");
    assert!(shim + logger <= BAR, "shim {shim} KiB, logger {logger} KiB");
    place.signal("c1", 9);
    place.exit_of("c1");
}

/// Medians of what the runtime will wait for, printed for people: the test harness is no place for bars on time.
#[test]
fn starts_and_execs_take() {
    let mut place = Place::new();
    let mut plan = place.plan("held", "");
    plan.process.args = vec!["/usr/bin/sleep".to_owned(), "1000".to_owned()];
    place.start(&plan).expect("start");
    let (mut starts, mut lives, mut execs) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..40 {
        let mut plan = place.plan(&format!("c{n}"), "");
        plan.process.args = vec!["/usr/bin/true".to_owned()];
        let begin = Instant::now();
        place.start(&plan).expect("start");
        starts.push(begin.elapsed());
        place.exit_of(&plan.id);
        lives.push(begin.elapsed());
        let null = fs::File::options().read(true).write(true).open("/dev/null").expect("null");
        let exec = Exec {
            id: format!("e{n}"),
            container: "held".to_owned(),
            delegate: None,
            user: None,
            process: crate::place::process(&["/usr/bin/true"]),
        };
        let begin = Instant::now();
        place.exec(&exec, [null.as_fd(); 3]).expect("exec");
        let Event::ExecExited { .. } = place.client.event() else { panic!("an exec's end") };
        execs.push(begin.elapsed());
    }
    for (what, times) in [("start", &mut starts), ("start and end", &mut lives), ("exec and end", &mut execs)] {
        times.sort_unstable();
        println!("{what}: median {:?}", times[times.len() / 2]);
    }
    place.signal("held", 9);
    place.exit_of("held");
}
