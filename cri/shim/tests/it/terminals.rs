use std::io::Write;

use berth_plan::container::{Container, Device, DeviceKind, Exec, Stdin};
use berth_plan::message::{Event, Exit, Stage};
use berth_sys::terminal;

use crate::place::{Place, children, descriptors, logger, process, shown_until, until};

/// A container on a terminal that runs a shell script and asks for input.
fn plan(place: &Place, name: &str, script: &str) -> Container {
    let mut plan = place.plan(name, script);
    plan.process.terminal = true;
    plan.stdin = Stdin::Open;
    let tty = Device {
        path: "/dev/tty".to_owned(),
        kind: DeviceKind::Character,
        major: 5,
        minor: 0,
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    plan.devices.push(tty);
    plan
}

fn exec(id: &str, script: &str) -> Exec {
    let mut plan = Exec {
        id: id.to_owned(),
        container: "c1".to_owned(),
        delegate: None,
        user: None,
        process: process(&["/bin/sh", "-c", script]),
    };
    plan.process.terminal = true;
    plan
}

fn exit_of(place: &mut Place, id: &str) -> Exit {
    match place.client.event() {
        Event::ExecExited { exec, exit } if exec == id => exit,
        other => panic!("{other:?}"),
    }
}

/// A container that only waits.
fn waiting(place: &mut Place) {
    let plan = place.plan("c1", "exec sleep 1000");
    place.start(&plan).expect("start");
}

#[test]
fn a_container_on_a_terminal_is_typed_to_and_logged() {
    let mut place = Place::new();
    let script = "read line; echo got $line; tty; stat -c %t:%T /dev/console; echo by name > /dev/tty; exit 3";
    let plan = plan(&place, "c1", script);
    place.start(&plan).expect("start");
    let mut attached = place.attach("c1", true, true, false).expect("attach");
    assert!(attached.terminal && attached.stdin);
    attached.type_in("hello\n");
    assert_eq!(attached.shown_until("by name\r\n"), "hello\r\ngot hello\r\n/dev/pts/0\r\n88:0\r\nby name\r\n");
    assert_eq!(place.exit_of("c1").code, 3);
    assert_eq!(
        place.log("c1"),
        "stdout F hello\r\nstdout F got hello\r\nstdout F /dev/pts/0\r\nstdout F 88:0\r\nstdout F by name\r\n"
    );
}

#[test]
fn a_terminals_size_is_seen_and_its_changes_are_told() {
    let mut place = Place::new();
    let plan = plan(&place, "c1", "trap 'stty size' WINCH; echo ready; while :; do sleep 0.02; done");
    place.start(&plan).expect("start");
    let mut attached = place.attach("c1", false, true, false).expect("attach");
    assert!(!attached.stdin);
    // What was printed before is not shown again.
    until(|| place.log("c1").contains("ready"));
    let master = attached.input.take().expect("the terminal");
    for (width, height) in [(91, 17), (132, 50)] {
        terminal::resize(&master, width, height).expect("resize");
        attached.shown_until(&format!("{height} {width}\r\n"));
    }
    place.signal("c1", 9);
    place.exit_of("c1");
}

/// systemd as process 1 does so, and daemons that open their console anew.
#[test]
fn a_terminal_that_nobody_holds_for_a_while_is_read_again() {
    let mut place = Place::new();
    // More than a terminal holds, so that it would stand still if nobody read.
    let script = "echo before; exec </dev/null >/dev/null 2>&1; sleep 0.3; \
                  for n in 1 2 3; do seq 2000 >/dev/console; sleep 0.1; done; echo after >/dev/console";
    let plan = plan(&place, "c1", script);
    let (exit, log) = place.run(&plan);
    assert_eq!(exit.code, 0, "{log}");
    assert!(log.starts_with("stdout F before\r\n") && log.ends_with("stdout F after\r\n"), "{log}");
    assert_eq!(log.lines().count(), 6002);
    assert_eq!(children(place.shim), [logger(place.shim)]);
}

#[test]
fn a_terminal_belongs_to_the_containers_user() {
    let mut place = Place::new();
    let mut plan = plan(&place, "c1", "echo again > $(tty); id -u; test -O /dev/console && echo mine");
    plan.process.uid = 1000;
    assert_eq!(place.output(&plan), "again\n1000\nmine\n");
}

#[test]
fn an_exec_has_a_terminal_of_its_own() {
    let mut place = Place::new();
    waiting(&mut place);
    let (_, mut master) =
        place.exec_on_terminal(&exec("e1", "read line; echo $line; stty size; tty; exit 5")).expect("exec");
    terminal::resize(&master, 100, 30).expect("resize");
    master.write_all(b"typed\n").expect("type");
    assert_eq!(shown_until(&mut master, "/dev/pts/0\r\n"), "typed\r\ntyped\r\n30 100\r\n/dev/pts/0\r\n");
    assert_eq!(exit_of(&mut place, "e1").code, 5);
    // Ctrl-C reaches the foreground, since the terminal is the session's.
    let (_, mut master) = place.exec_on_terminal(&exec("e2", "echo ready; exec sleep 1000")).expect("exec");
    shown_until(&mut master, "ready\r\n");
    master.write_all(&[3]).expect("type");
    assert_eq!(exit_of(&mut place, "e2").signal, 2);
}

#[test]
fn a_terminal_that_is_closed_hangs_up() {
    let mut place = Place::new();
    waiting(&mut place);
    let script = "trap 'exit 7' HUP; echo ready; while :; do sleep 0.02; done";
    let (_, mut master) = place.exec_on_terminal(&exec("e1", script)).expect("exec");
    shown_until(&mut master, "ready\r\n");
    drop(master);
    assert_eq!(exit_of(&mut place, "e1").code, 7);
}

#[test]
fn clients_that_die_leave_no_terminals() {
    let mut place = Place::new();
    waiting(&mut place);
    let logger = logger(place.shim);
    let before = descriptors(&mut place, logger);
    for n in 0..200 {
        let id = format!("e{n}");
        let (_, master) = place.exec_on_terminal(&exec(&id, "exec sleep 1000")).expect("exec");
        drop(master);
        assert_eq!(exit_of(&mut place, &id).signal, 1);
    }
    assert_eq!(descriptors(&mut place, logger), before);
}

#[test]
fn a_terminal_is_made_in_a_devpts_only() {
    let mut place = Place::new();
    let mut plan = plan(&place, "c1", "true");
    plan.mounts.retain(|mount| mount.destination != "/dev/pts");
    let failure = place.start(&plan).expect_err("no devpts");
    assert_eq!(failure.stage, Stage::Device);
    assert!(failure.message.contains("/dev/pts"), "{}", failure.message);
    // An image's own /dev with a ptmx that nobody may open: the open would wait for ever.
    plan.mounts.retain(|mount| mount.destination != "/dev");
    plan.devices.clear();
    std::fs::create_dir(place.folder.join("image/dev/pts")).expect("folder");
    let fifo = place.folder.join("image/dev/pts/ptmx");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    let failure = place.start(&plan).expect_err("no devpts");
    assert_eq!(failure.message, "open a terminal in \"/dev/pts\": it is no devpts");
}

/// CVE-2025-52565: a console that is a link must not lead the mount elsewhere.
#[test]
fn a_linked_console_is_refused() {
    let mut place = Place::new();
    let mut plan = plan(&place, "c1", "true");
    plan.links.push(("/dev/console".to_owned(), "/etc/passwd".to_owned()));
    let failure = place.start(&plan).expect_err("a link");
    assert_eq!(failure.message, "\"/dev/console\" is a symbolic link");
}

/// A container that has put something else where its terminals are made.
#[test]
fn an_exec_is_not_led_to_a_false_devpts() {
    let mut place = Place::new();
    let script = "mount -t tmpfs none /dev/pts && mkfifo /dev/pts/ptmx && touch /ready; exec sleep 1000";
    let mut plan = place.plan("c1", script);
    let admin = 1 << 21;
    plan.process.capabilities.bounding |= admin;
    plan.process.capabilities.permitted |= admin;
    plan.process.capabilities.effective |= admin;
    place.start(&plan).expect("start");
    let ready = place.folder.join("c1/upper/ready");
    until(|| ready.exists());
    let failure = place.exec_on_terminal(&exec("e1", "true")).map(|(pid, _)| pid).expect_err("no devpts");
    assert_eq!(
        (failure.stage, failure.message.as_str()),
        (Stage::Device, "open a terminal in \"/dev/pts\": it is no devpts")
    );
}

#[test]
fn an_ended_container_on_a_terminal_has_shown_all_that_it_printed() {
    let mut place = Place::new();
    for n in 0..20 {
        let name = format!("c{n}");
        let plan = plan(&place, &name, "seq 300");
        let (_, log) = place.run(&plan);
        assert!(log.ends_with("stdout F 300\r\n"), "{log}");
        assert_eq!(log.lines().count(), 300);
    }
}
