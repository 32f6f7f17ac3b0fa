//! Standard streams, terminals and descriptors.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::thread;

use serde_json::json;

use crate::check::all;
use crate::stage::{Stage, set};

#[test]
fn standard_input_arrives() {
    all(|stage| {
        stage.write(&stage.configuration(&["/bin/cat"]));
        let mut child = stage
            .command(&["run", &stage.id("c")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the runtime");
        let input = child.stdin.take().expect("a pipe");
        { input }.write_all(b"typed").expect("written");
        let mut said = String::new();
        child.stdout.take().expect("a pipe").read_to_string(&mut said).expect("read");
        assert!(child.wait().expect("wait").success());
        assert_eq!(said, "typed");
    });
}

/// Receives a terminal's master at a socket.
pub(crate) fn receiver(stage: &Stage, name: &str) -> (String, thread::JoinHandle<OwnedFd>) {
    let path = stage.path(name);
    let socket = UnixListener::bind(&path).expect("a socket");
    let receiver = thread::spawn(move || {
        let (connection, _) = socket.accept().expect("a connection");
        let mut text = [0; 4096];
        let (_, descriptors) = berth_sys::seqpacket::recv(connection.as_fd(), &mut text).expect("a message");
        descriptors.into_iter().next().expect("a terminal")
    });
    (path.to_str().expect("text").to_owned(), receiver)
}

fn read_until(master: &mut File, end: &str) -> String {
    let mut said = String::new();
    let mut buffer = [0; 1024];
    while !said.contains(end) {
        match master.read(&mut buffer) {
            Ok(length) if length > 0 => said.push_str(&String::from_utf8_lossy(&buffer[..length])),
            _ => break,
        }
    }
    said
}

#[test]
fn a_terminal_is_handed_over() {
    all(|stage| {
        let id = stage.id("c");
        stage.write_with(&["/bin/sh", "-c", "tty; read line; echo got $line; exec sleep 1000"], |one| {
            set(one, "/process/terminal", json!(true));
        });
        let (path, receiver) = receiver(stage, "console.sock");
        stage.call(&["create", "--console-socket", &path, &id]).ok();
        let mut master = File::from(receiver.join().expect("a terminal"));
        stage.call(&["start", &id]).ok();
        let said = read_until(&mut master, "\n");
        assert!(said.contains("/dev/pts/0") || said.contains("/dev/console"), "{said}");
        master.write_all(b"words\n").expect("typed");
        let said = read_until(&mut master, "got words");
        assert!(said.contains("got words"), "{said}");
        stage.call(&["delete", "--force", &id]).ok();
        stage.nothing_is_left();
    });
}

#[test]
fn an_exec_has_a_terminal_of_its_own() {
    all(|stage| {
        let id = stage.id("c");
        stage.running(&id);
        let (path, receiver) = receiver(stage, "exec.sock");
        let script = "tty; exit 0";
        stage.call(&["exec", "-t", "-d", "--console-socket", &path, &id, "sh", "-c", script]).ok();
        let mut master = File::from(receiver.join().expect("a terminal"));
        assert!(read_until(&mut master, "\n").contains("/dev/pts/"));
        stage.call(&["delete", "--force", &id]).ok();
    });
}

#[test]
fn a_terminal_without_a_socket_needs_somebody_who_stays() {
    all(|stage| {
        let id = stage.id("c");
        stage.write_with(&["/bin/true"], |one| set(one, "/process/terminal", json!(true)));
        stage.call(&["create", &id]).fails();
        stage.call(&["run", "--detach", &id]).fails();
        stage.nothing_is_left();
    });
}

#[test]
fn descriptors_are_kept_where_asked() {
    all(|stage| {
        let id = stage.id("c");
        let file = stage.path("kept");
        fs::write(&file, "through descriptor 3").expect("a file");
        stage.write(&stage.configuration(&["/bin/sh", "-c", "cat <&3; ls /proc/self/fd | grep -c ."]));
        let name = file.to_str().expect("text").to_owned();
        let inner = stage.command(&["run", "--preserve-fds", "1", &id]);
        let mut outer = std::process::Command::new("sh");
        outer.args(["-c", "exec 3<\"$0\"; exec \"$@\"", &name]).arg(inner.get_program()).args(inner.get_args());
        outer.current_dir(stage.path("bundle")).stdin(Stdio::null());
        let said = stage.finish(outer, &["run"]).ok();
        assert_eq!(said.out(), "through descriptor 35\n");
        stage.nothing_is_left();
    });
}

#[test]
fn sockets_of_systemd_are_passed_on() {
    all(|stage| {
        let id = stage.id("c");
        let file = stage.path("kept");
        fs::write(&file, "socket").expect("a file");
        stage.write(&stage.configuration(&["/bin/sh", "-c", "cat <&3; echo $LISTEN_FDS $LISTEN_PID"]));
        let inner = stage.command(&["run", &id]);
        let mut outer = std::process::Command::new("sh");
        let script = "exec 3<\"$0\"; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";
        outer.args(["-c", script, file.to_str().expect("text")]).arg(inner.get_program()).args(inner.get_args());
        outer.current_dir(stage.path("bundle")).stdin(Stdio::null());
        assert_eq!(stage.finish(outer, &["run"]).ok().out(), "socket1 1\n");
    });
}

#[test]
fn errors_are_logged_for_the_caller() {
    all(|stage| {
        let log = stage.path("log.json");
        let name = log.to_str().expect("text");
        stage.write(&stage.configuration(&["not-in-path"]));
        stage.call(&["--log", name, "--log-format", "json", "run", &stage.id("c")]).fails();
        let text = fs::read_to_string(&log).expect("a log");
        let last: serde_json::Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
        assert_eq!(last["level"], "error");
        assert!(last["msg"].as_str().is_some_and(|said| said.contains("not found")), "{last}");
    });
}
