use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use berth_plan::container::Exec;
use berth_plan::message::{Event, Exit, Request, Stage, Target};
use berth_sys::fd;

use crate::place::{Place, name_of, process, until};

pub(crate) fn plan(id: &str, container: &str, script: &str) -> Exec {
    let process = process(&["/bin/sh", "-c", script]);
    Exec { id: id.to_owned(), container: container.to_owned(), delegate: None, user: None, process }
}

fn null() -> OwnedFd {
    File::options().read(true).write(true).open("/dev/null").expect("null").into()
}

/// Runs it to its end: its exit, and what it wrote to both streams.
pub(crate) fn run(place: &mut Place, plan: &Exec) -> (Exit, String) {
    let (reader, writer) = fd::pipe().expect("pipe");
    let input = null();
    place.exec(plan, [input.as_fd(), writer.as_fd(), writer.as_fd()]).expect("exec");
    drop(writer);
    let mut text = String::new();
    File::from(reader).read_to_string(&mut text).expect("read");
    match place.client.event() {
        Event::ExecExited { exec, exit } if exec == plan.id => (exit, text),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_exec_is_inside_and_limited_as_its_plan_says() {
    let mut place = Place::new();
    let container = place.plan("c1", "touch /mark; exec sleep 1000");
    let first = place.start(&container).expect("start");
    until(|| name_of(first) == "sleep");
    let mut exec = plan(
        "e1",
        "c1",
        "ls /mark /proc/self/fd; cat /proc/1/comm; hostname; pwd; id -u; grep CapPrm /proc/self/status; exit 5",
    );
    exec.process.uid = 1000;
    exec.process.cwd = "/tmp".to_owned();
    exec.process.oom_score_adj = Some(500);
    let (exit, text) = run(&mut place, &exec);
    assert_eq!(exit.code, 5, "{text}");
    assert!(
        text.starts_with("/mark\n\n/proc/self/fd:\n0\n1\n2\n3\nsleep\npod-1\n/tmp\n1000\nCapPrm:\t0000000000000000\n"),
        "{text}"
    );
    // The next container is born in the host's PID namespace again, and so is the next exec in the first's.
    let second = place.plan("c2", "echo pid $$");
    assert_eq!(place.output(&second), "pid 1\n");
    let (_, text) = run(&mut place, &plan("e1", "c1", "set -- /proc/[0-9]*; echo $#"));
    assert_eq!(text.trim(), "2", "the first process and this one");
    place.signal("c1", 9);
    place.exit_of("c1");
}

#[test]
fn an_exec_fails_in_known_words() {
    let mut place = Place::new();
    let container = place.plan("c1", "exec sleep 1000");
    place.start(&container).expect("start");
    let input = null();
    let mut exec = plan("e1", "c1", "");
    exec.process = process(&["nope"]);
    let failure = place.exec(&exec, [input.as_fd(); 3]).expect_err("not found");
    assert_eq!(
        (failure.stage, failure.message.as_str()),
        (Stage::Execve, "exec: \"nope\": executable file not found in $PATH")
    );
    let failure = place.exec(&plan("e1", "c9", "true"), [input.as_fd(); 3]).expect_err("no container");
    assert_eq!(failure.stage, Stage::UnknownTarget);
    exec.process = process(&["/bin/true"]);
    exec.process.cwd = "/no/such".to_owned();
    assert_eq!(place.exec(&exec, [input.as_fd(); 3]).expect_err("no folder").stage, Stage::Cwd);
    exec.process.cwd = "/proc/self/root/tmp".to_owned();
    assert_eq!(place.exec(&exec, [input.as_fd(); 3]).expect_err("a magic link").stage, Stage::Cwd);
    place.signal("c1", 9);
    place.exit_of("c1");
    let failure = place.exec(&plan("e1", "c1", "true"), [input.as_fd(); 3]).expect_err("it has ended");
    assert_eq!(failure.stage, Stage::UnknownTarget);
}

#[test]
fn all_of_an_execs_session_is_killed() {
    let mut place = Place::new();
    let container = place.plan("c1", "exec sleep 1000");
    place.start(&container).expect("start");
    let (reader, writer) = fd::pipe().expect("pipe");
    let input = null();
    let exec = plan("e1", "c1", "sleep 2000 & sleep 2001 & (sleep 2002; true) & echo forked; wait");
    place.exec(&exec, [input.as_fd(), writer.as_fd(), writer.as_fd()]).expect("exec");
    drop(writer);
    let mut output = File::from(reader);
    let mut buffer = [0; 7];
    output.read_exact(&mut buffer).expect("forked");
    place.client.ask(Request::Signal { target: Target::Exec("e1".to_owned()), signal: 9 }, &[]).expect("signal");
    let Event::ExecExited { exit, .. } = place.client.event() else { panic!("an exec's end") };
    assert_eq!((exit.code, exit.signal), (137, 9));
    // The pipe's end says that nobody of the session is left.
    assert_eq!(output.read(&mut [0]).expect("end"), 0);
    place.signal("c1", 9);
    place.exit_of("c1");
}
