//! Against a server that plays systemd: what is asked in which order, and what is made of the answers. A real systemd is
//! asked in `xtask vm systemd-cgroups`.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::{self, JoinHandle};

use berth_plan::resources::Resources;

use crate::bus::Bus;
use crate::error::SystemdError;
use crate::systemd::Systemd;
use crate::wire::tests::{from_server, serial};
use crate::wire::{self, Body, HEAD};

const JOB: &str = "/org/freedesktop/systemd1/job/7";
const NO_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// What is said to one call: messages in their order.
type Say = fn(u32) -> Vec<Vec<u8>>;

fn answer(to: u32, body: &Body) -> Vec<u8> {
    from_server(2, Some(to), "", "", body)
}

fn refuse(to: u32, error: &str) -> Vec<u8> {
    from_server(3, Some(to), error, "", &Body::new("s").text("no"))
}

fn removed(job: &str, result: &str) -> Vec<u8> {
    // The number of the job is 1, as a bool's.
    from_server(4, None, "", "JobRemoved", &Body::new("uoss").bool(true).text(job).text("a.scope").text(result))
}

fn job(to: u32) -> Vec<u8> {
    answer(to, &Body::new("o").text(JOB))
}

/// Serves one connection: each call must be the next one, and gets what is said to it. The server ends with the calls.
fn serve(path: &Path, calls: Vec<(&'static str, Say)>) -> JoinHandle<()> {
    let listener = UnixListener::bind(path).expect("a socket");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let user = berth_sys::process::effective_user().to_string();
        let hex: String = user.bytes().map(|byte| format!("{byte:02x}")).collect();
        expect(&mut stream, format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes());
        stream.write_all(b"OK 0123\r\n").expect("written");
        expect(&mut stream, b"BEGIN\r\n");
        for (member, say) in calls {
            let mut bytes = vec![0; HEAD];
            stream.read_exact(&mut bytes).expect("a call");
            bytes.resize(wire::size(bytes.first_chunk().expect("a head")).expect("a size"), 0);
            stream.read_exact(&mut bytes[HEAD..]).expect("the rest");
            assert_eq!(wire::read(&bytes).expect("a call").member, member);
            for message in say(serial(&bytes)) {
                stream.write_all(&message).expect("written");
            }
        }
    })
}

fn expect(stream: &mut UnixStream, words: &[u8]) {
    let mut read = vec![0; words.len()];
    stream.read_exact(&mut read).expect("words");
    assert_eq!(read, words);
}

fn play<T>(calls: Vec<(&'static str, Say)>, act: impl FnOnce(&mut Systemd) -> T) -> T {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("private");
    let server = serve(&path, calls);
    let mut systemd = Systemd::over(Bus::at(&path).expect("connected"), Some(252));
    let outcome = act(&mut systemd);
    drop(systemd);
    server.join().expect("every call was made");
    outcome
}

#[test]
fn a_unit_is_started_once_its_job_is_done() {
    // The end of the job may come before the answer that names it, and others' ends at any time.
    play(
        vec![("StartTransientUnit", |to| vec![removed("/other", "failed"), removed(JOB, "done"), job(to)])],
        |systemd| systemd.start("a.scope", &[]).expect("started"),
    );
    play(vec![("StartTransientUnit", |to| vec![job(to), removed(JOB, "done")])], |systemd| {
        systemd.start("a.scope", &[]).expect("started");
    });
}

#[test]
fn a_job_that_fails_leaves_no_name() {
    let calls: Vec<(&'static str, Say)> = vec![
        ("StartTransientUnit", |to| vec![job(to), removed(JOB, "timeout")]),
        ("ResetFailedUnit", |to| vec![answer(to, &Body::default())]),
    ];
    let error = play(calls, |systemd| systemd.start("a.scope", &[])).expect_err("no unit");
    assert!(error.to_string().contains("a.scope") && error.to_string().contains("timeout"), "{error}");
}

#[test]
fn a_unit_that_is_gone_is_stopped() {
    let calls: Vec<(&'static str, Say)> =
        vec![("StopUnit", |to| vec![refuse(to, NO_UNIT)]), ("ResetFailedUnit", |to| vec![refuse(to, NO_UNIT)])];
    play(calls, |systemd| systemd.stop("a.scope")).expect("gone");
    let limits = Resources { pids_limit: Some(1), ..Resources::default() };
    let cgroup = berth_cgroup::Host::detect().and_then(|host| host.open("/berth-no-such-cgroup")).expect("a path");
    play(vec![("SetUnitProperties", |to| vec![refuse(to, NO_UNIT)])], |systemd| {
        systemd.limit("a.scope", &cgroup, &limits, &[])
    })
    .expect("gone");
}

#[test]
fn what_systemd_refuses_is_told_in_its_words() {
    let error = play(vec![("StopUnit", |to| vec![refuse(to, "org.freedesktop.DBus.Error.AccessDenied")])], |systemd| {
        systemd.stop("a.scope")
    });
    let error = error.expect_err("refused").to_string();
    assert!(error.contains("StopUnit: no (org.freedesktop.DBus.Error.AccessDenied)"), "{error}");
}

#[test]
fn a_server_that_hangs_up_or_talks_nonsense_is_an_error() {
    let error = play(vec![("StopUnit", |_| vec![])], |systemd| systemd.stop("a.scope")).expect_err("it hung up");
    assert!(matches!(error, SystemdError::Io { .. }), "{error}");
    let nonsense: Say = |_| vec![b"HTTP/1.1 200 OK\r\n\r\n".to_vec()];
    let error = play(vec![("StopUnit", nonsense)], |systemd| systemd.stop("a.scope")).expect_err("nonsense");
    assert!(matches!(error, SystemdError::Malformed(_)), "{error}");
}

#[test]
fn a_version_is_asked_for() {
    let version: Say = |to| vec![answer(to, &Body::new("v").variant("249.11-0ubuntu3"))];
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("private");
    let server = serve(&path, vec![("Get", version)]);
    let mut systemd = Systemd::over(Bus::at(&path).expect("connected"), None);
    assert_eq!((systemd.version().expect("said"), systemd.version().expect("remembered")), (249, 249));
    server.join().expect("asked once");
}
