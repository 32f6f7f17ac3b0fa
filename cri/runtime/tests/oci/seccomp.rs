//! System call filters.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::thread;

use serde_json::{Value, json};

use crate::check::{all, alone};
use crate::stage::{Stage, set};

#[test]
fn calls_are_answered_by_the_profile() {
    all(|stage| {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [
                { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77 },
                { "names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO",
                  "args": [{ "index": 1, "value": 0o777, "op": "SCMP_CMP_EQ" }] },
            ],
        });
        let script = "mkdir /work/a; chmod 777 /work 2> /dev/null || echo refused; chmod 755 /work && echo allowed; \
                      grep Seccomp: /proc/self/status";
        for privileges in [true, false] {
            stage.write_with(&["/bin/sh", "-c", script], |one| {
                set(one, "/linux/seccomp", profile.clone());
                set(one, "/process/noNewPrivileges", json!(privileges));
            });
            let said = stage.run().ok();
            assert!(said.error().contains("77") || said.error().contains("File descriptor"), "{}", said.error());
            assert!(said.out().ends_with("allowed\nSeccomp:\t2\n"), "{}", said.out());
        }
    });
}

#[test]
fn an_exec_is_filtered_too() {
    all(|stage| {
        let id = stage.id("c");
        let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 }] });
        stage.write_with(&["/bin/sleep", "1000"], |one| set(one, "/linux/seccomp", profile));
        stage.call(&["create", &id]).ok();
        stage.call(&["start", &id]).ok();
        stage.call(&["exec", &id, "mkdir", "/work/a"]).fails();
        stage.call(&["exec", &id, "touch", "/work/a"]).ok();
    });
}

/// Takes the listener of a filter, and the state that comes with it, and lets the calls that wait fail by going away.
fn agent(stage: &Stage) -> (String, thread::JoinHandle<(Value, usize)>) {
    let path = stage.path("agent.sock");
    let socket = UnixListener::bind(&path).expect("a socket");
    let agent = thread::spawn(move || {
        let (connection, _) = socket.accept().expect("a connection");
        let mut text = [0; 8192];
        let (length, descriptors) = berth_sys::seqpacket::recv(connection.as_fd(), &mut text).expect("a message");
        let mut rest = Vec::new();
        let _ = { connection }.read_to_end(&mut rest);
        let state: Value = serde_json::from_slice(&[&text[..length], &rest].concat()).expect("a state");
        // Closing it answers calls that wait with ENOSYS.
        (state, descriptors.len())
    });
    (path.to_str().expect("text").to_owned(), agent)
}

#[test]
fn a_listener_gets_the_calls_and_the_state() {
    alone(
        "Debian's runc is built without a seccomp that can notify, and crun 1.8.1 sends another state",
        |stage: &Stage| {
            for waits in [false, true] {
                let _ = std::fs::remove_file(stage.path("agent.sock"));
                let (path, agent) = agent(stage);
                let id = stage.id(if waits { "waits" } else { "runs" });
                stage.write_with(&["/bin/sh", "-c", "mkdir /work/a 2> /dev/null || echo answered"], |one| {
                    set(
                        one,
                        "/linux/seccomp",
                        json!({
                            "defaultAction": "SCMP_ACT_ALLOW",
                            "listenerPath": path,
                            "listenerMetadata": "meta",
                            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }],
                        }),
                    );
                });
                let said = if waits {
                    let made = stage.call(&["create", &id]).ok();
                    stage.call(&["start", &id]).ok();
                    stage.wait_stopped(&id);
                    made
                } else {
                    stage.call(&["run", &id]).ok()
                };
                let (state, descriptors) = agent.join().expect("the agent");
                assert_eq!((descriptors, said.out().as_str()), (1, "answered\n"));
                assert_eq!((&state["fds"], &state["metadata"]), (&json!(["seccompFd"]), &json!("meta")));
                assert_eq!(state["state"]["id"], id.as_str());
                assert!(state["pid"].as_i64().is_some_and(|pid| pid > 1), "{state}");
            }
        },
    );
    alone("the same", |stage: &Stage| {
        // Nobody listens: nothing is started.
        stage.write_with(&["/bin/touch", "/work/ran"], |one| {
            set(
                one,
                "/linux/seccomp",
                json!({
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "listenerPath": stage.path("nobody"),
                    "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }],
                }),
            );
        });
        assert!(stage.run().fails().error().contains("linux.seccomp.listenerPath"));
        assert!(!stage.rootfs().join("work/ran").exists());
        stage.nothing_is_left();
    });
}
