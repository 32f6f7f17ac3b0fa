use std::io::Read;

use berth_plan::container::Stdin;
use berth_plan::message::{Request, Stage};
use berth_sys::pidfd::PidFd;

use crate::client::Client;
use crate::place::{Place, bind, descriptors, logger, until};

const ECHO: &str = "while read line; do echo got $line; echo and >&2; done; echo end";

fn rest(mut output: impl Read) -> String {
    let mut text = String::new();
    output.read_to_string(&mut text).expect("read");
    text
}

#[test]
fn clients_see_what_is_printed_while_they_are_attached() {
    let mut place = Place::new();
    let mut plan = place.plan("c1", ECHO);
    plan.stdin = Stdin::Open;
    place.start(&plan).expect("start");
    let mut first = place.attach("c1", true, true, true).expect("attach");
    assert!(!first.terminal && first.stdin);
    let mut second = place.attach("c1", false, true, false).expect("attach");
    assert!(!second.stdin && second.input.is_none());
    first.type_in("one\n");
    assert_eq!(
        (first.shown_until("one\n"), second.shown_until("one\n")),
        ("got one\n".to_owned(), "got one\n".to_owned())
    );
    assert_eq!(crate::place::shown_until(&mut first.outputs[1], "and\n"), "and\n");
    // The container goes on when a client goes, and its input stays open.
    drop(first);
    let mut third = place.attach("c1", true, true, false).expect("attach");
    third.type_in("two\n");
    assert_eq!(
        (third.shown_until("two\n"), second.shown_until("two\n")),
        ("got two\n".to_owned(), "got two\n".to_owned())
    );
    place.signal("c1", 9);
    place.exit_of("c1");
    assert_eq!(place.log("c1").matches("stdout F got ").count(), 2);
    // The end of the container is the end of the streams.
    assert_eq!((rest(&mut second.outputs[0]), rest(&mut third.outputs[0])), (String::new(), String::new()));
}

#[test]
fn an_input_that_is_open_once_ends_with_its_first_client() {
    let mut place = Place::new();
    let mut plan = place.plan("c1", ECHO);
    plan.stdin = Stdin::Once;
    place.start(&plan).expect("start");
    // Output alone does not use it up.
    drop(place.attach("c1", false, true, false).expect("attach"));
    let mut first = place.attach("c1", true, true, false).expect("attach");
    let mut second = place.attach("c1", true, true, false).expect("attach");
    assert!(first.stdin && !second.stdin);
    first.type_in("one\n");
    first.input.take();
    assert_eq!(place.exit_of("c1").code, 0);
    for output in [&mut first.outputs[0], &mut second.outputs[0]] {
        assert_eq!(rest(output), "got one\nend\n");
    }
}

#[test]
fn a_container_without_input_or_log_is_attached_to_all_the_same() {
    let mut place = Place::new();
    let mut plan = place.plan("c1", "while ! test -e /host/go; do sleep 0.01; done; echo here");
    plan.log_path = String::new();
    // Not the overlay's upper folder: overlayfs need not notice what is put there behind its back, and keeps what it did
    // not find.
    let shared = place.folder.join("shared");
    std::fs::create_dir(&shared).expect("a folder");
    plan.mounts.push(bind(shared.to_str().expect("text"), "/host", 0));
    place.start(&plan).expect("start");
    let mut attached = place.attach("c1", true, true, false).expect("attach");
    assert!(!attached.stdin && attached.input.is_none());
    std::fs::write(shared.join("go"), "").expect("go");
    assert_eq!(place.exit_of("c1").code, 0);
    assert_eq!(rest(&mut attached.outputs[0]), "here\n");
}

/// A client that does not read is dropped, and costs neither the log nor the others a byte.
#[test]
fn a_slow_client_holds_nobody_up() {
    let mut place = Place::new();
    let mut plan = place.plan("c1", "read go; seq 100000");
    plan.stdin = Stdin::Open;
    place.start(&plan).expect("start");
    let mut slow = place.attach("c1", false, true, false).expect("attach");
    let mut quick = place.attach("c1", true, true, false).expect("attach");
    quick.type_in("go\n");
    let reader = std::thread::spawn(move || rest(&mut quick.outputs[0]));
    assert_eq!(place.exit_of("c1").code, 0);
    let wanted: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    assert!(reader.join().expect("read") == wanted, "the quick one has it all");
    let kept = rest(&mut slow.outputs[0]);
    assert!(wanted.starts_with(&kept) && kept.len() <= 64 << 10, "the slow one has what its pipe held: {}", kept.len());
    assert_eq!(place.log("c1").lines().count(), 100_000);
}

#[test]
fn ten_thousand_dead_clients_leave_nothing() {
    let mut place = Place::new();
    let mut plan = place.plan("c1", "exec sleep 1000");
    plan.stdin = Stdin::Open;
    place.start(&plan).expect("start");
    let logger = logger(place.shim);
    let before = descriptors(&mut place, logger);
    for _ in 0..10_000 {
        drop(place.attach("c1", true, true, true).expect("attach"));
    }
    // The log writer hears of the last ones a moment later.
    until(|| descriptors(&mut place, logger).1 == before.1);
    assert_eq!(descriptors(&mut place, logger), before);
}

#[test]
fn what_can_not_be_attached_is_refused() {
    let mut place = Place::new();
    assert_eq!(place.attach("c1", false, true, false).map(drop).expect_err("unknown").stage, Stage::UnknownTarget);
    let plan = place.plan("c1", "exec sleep 1000");
    place.start(&plan).expect("start");
    let request = Request::Attach { container: "c1".to_owned(), stdin: false, stdout: true, stderr: false };
    assert_eq!(place.client.ask(request.clone(), &[]).expect_err("no pipe").stage, Stage::Protocol);
    let file = std::fs::File::open("/etc/passwd").expect("a file");
    let failure = place.client.ask(request, &[std::os::fd::AsFd::as_fd(&file)]).expect_err("no pipe");
    assert_eq!((failure.stage, failure.errno), (Stage::Log, 1));
    // More clients than any container has.
    let clients: Vec<_> = (0..128).map(|_| place.attach("c1", false, true, false).expect("attach")).collect();
    assert_eq!(place.attach("c1", false, true, false).map(drop).expect_err("too many").errno, 87);
    drop(clients);
    place.signal("c1", 9);
    place.exit_of("c1");
    assert_eq!(place.attach("c1", false, true, false).map(drop).expect_err("it has ended").stage, Stage::UnknownTarget);
}

#[test]
fn a_client_attaches_again_after_a_restart_and_after_a_loggers_death() {
    let mut place = Place::new();
    let mut plan = place.plan("c1", ECHO);
    plan.stdin = Stdin::Open;
    place.start(&plan).expect("start");
    let mut before = place.attach("c1", true, true, false).expect("attach");
    let (client, _) = Client::connect(&place.folder.join("run/shim.sock"));
    std::mem::replace(&mut place.client, client).hang_up();
    // The connection is gone, the streams are not.
    before.type_in("one\n");
    assert_eq!(before.shown_until("one\n"), "got one\n");
    let mut again = place.attach("c1", true, true, false).expect("attach");
    again.type_in("two\n");
    assert_eq!(again.shown_until("two\n"), "got two\n");

    let old = PidFd::open(logger(place.shim)).expect("open");
    old.kill().expect("kill");
    assert!(old.has_ended(-1).expect("poll"));
    assert_eq!(rest(&mut again.outputs[0]), "");
    let mut third = loop {
        // The next logger may take a moment.
        match place.attach("c1", true, true, false) {
            Ok(attached) => break attached,
            Err(failure) => assert_eq!(failure.stage, Stage::Log, "{}", failure.message),
        }
    };
    third.type_in("three\n");
    assert_eq!(third.shown_until("three\n"), "got three\n");
    place.signal("c1", 9);
    place.exit_of("c1");
}
