//! What is left by a runtime that was killed in the middle, or by one that failed.

use std::fs;

use serde_json::{Value, json};

use crate::check::alone;
use crate::stage::{Stage, push, set};

const REASON: &str = "references have no crash points";

/// Every effect of `create`, before and after: whatever was made by then, `delete --force` takes away.
#[test]
fn a_create_that_was_killed_is_cleared_away() {
    alone(REASON, |stage: &Stage| {
        let id = stage.id("c");
        stage.write(&stage.configuration(&["/bin/true"]));
        let mut points = 0;
        for point in 1.. {
            let mut command = stage.command(&["create", &id]);
            command.env("BERTH_CRASH_AT", point.to_string());
            let said = stage.finish(command, &["create"]);
            let survived = said.code == 0;
            if !survived {
                assert!(said.error().contains("BERTH_CRASH_AT"), "{}", said.error());
                // A container that is half made is no container that runs.
                if let Ok(state) = serde_json::from_str::<Value>(&stage.call(&["state", &id]).out()) {
                    assert!(state["status"] != "running", "{point}: {state}");
                    stage.call(&["start", &id]);
                }
            }
            stage.call(&["delete", "--force", &id]).ok();
            assert_eq!(stage.leftovers(), Vec::<String>::new(), "after crash point {point}");
            if survived {
                points = point - 1;
                break;
            }
        }
        assert!(points >= 8, "only {points} crash points were visited");
    });
}

type Change = fn(&Stage, &mut Value);

/// Every step of `create` and of its child fails once: it is told, and nothing of the container stays. What fails after
/// `create` has ended fails `start`, or later, and `delete --force` takes it away.
#[test]
fn whatever_step_fails_nothing_half_made_stays() {
    alone("references have no steps that can be made to fail", |stage: &Stage| {
        for (name, change) in [("plain", with_much as Change), ("user", with_users)] {
            stage.write_with(&["/bin/true"], |one| change(stage, one));
            for variable in ["BERTH_FAIL_AT", "BERTH_FAIL_IN_FORK_AT"] {
                let steps = (1..).take_while(|&step| fails_at(stage, variable, step)).count();
                println!("{name}, {variable}: {steps} steps were made to fail");
                assert!(steps >= 10, "{name}, {variable}: only {steps} steps");
            }
        }
    });
}

/// Whether there was such a step.
fn fails_at(stage: &Stage, variable: &str, step: u64) -> bool {
    let id = stage.id("c");
    let with = |arguments: &[&str]| {
        let mut command = stage.command(arguments);
        command.env(variable, step.to_string());
        stage.finish(command, arguments)
    };
    let created = with(&["create", &id]);
    if created.code != 0 {
        let said = created.error();
        assert!(said.contains("input/output error"), "{variable}={step}: {said}");
        assert_eq!(stage.leftovers(), Vec::<String>::new(), "{variable}={step}: {said}");
        return true;
    }
    let started = with(&["start", &id]);
    let had = [&created, &started].iter().any(|said| said.error().contains(variable));
    stage.call(&["delete", "--force", &id]).ok();
    assert_eq!(stage.leftovers(), Vec::<String>::new(), "{variable}={step}: {}{}", created.error(), started.error());
    had
}

fn with_much(stage: &Stage, one: &mut Value) {
    let source = stage.path("source");
    fs::create_dir_all(&source).expect("a folder");
    for mount in [
        json!({ "destination": "/made/here", "type": "bind", "source": source, "options": ["rbind", "ro"] }),
        json!({ "destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"] }),
        json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"] }),
    ] {
        push(one, "/mounts", mount);
    }
    push(one, "/linux/namespaces", json!({ "type": "cgroup" }));
    for (pointer, value) in [
        ("/process/cwd", json!("/work/new")),
        ("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }])),
        ("/process/oomScoreAdj", json!(500)),
        ("/linux/sysctl", json!({ "kernel.domainname": "example" })),
        ("/linux/maskedPaths", json!(["/proc/kcore", "/sys/firmware"])),
        ("/linux/readonlyPaths", json!(["/proc/sys"])),
        ("/linux/devices", json!([{ "path": "/dev/own", "type": "c", "major": 1, "minor": 3 }])),
        ("/linux/resources/memory", json!({ "limit": 64 << 20 })),
        ("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW" })),
        ("/root/readonly", json!(true)),
    ] {
        set(one, pointer, value);
    }
}

fn with_users(_: &Stage, one: &mut Value) {
    push(one, "/linux/namespaces", json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    set(one, "/linux/uidMappings", map.clone());
    set(one, "/linux/gidMappings", map);
}

#[test]
fn a_delete_that_was_killed_can_be_repeated() {
    alone(REASON, |stage: &Stage| {
        let id = stage.id("c");
        for point in 1..20 {
            stage.write(&stage.configuration(&["/bin/true"]));
            stage.call(&["create", &id]).ok();
            stage.call(&["start", &id]).ok();
            stage.wait_stopped(&id);
            let mut command = stage.command(&["delete", &id]);
            command.env("BERTH_CRASH_AT", point.to_string());
            let survived = stage.finish(command, &["delete"]).code == 0;
            stage.call(&["delete", "--force", &id]).ok();
            assert_eq!(stage.leftovers(), Vec::<String>::new(), "after crash point {point}");
            if survived {
                assert!(point > 2, "nothing was counted");
                return;
            }
        }
        panic!("delete has no end");
    });
}

#[test]
fn what_fails_half_way_leaves_nothing() {
    alone("references leave cgroups", |stage: &Stage| {
        let id = stage.id("c");
        let cases = [
            ("/root/path", json!("nowhere")),
            ("/mounts/1/options", json!(["nonsense=1"])),
            ("/mounts/1", json!({ "destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"] })),
            ("/linux/namespaces/1", json!({ "type": "network", "path": "/etc/passwd" })),
            ("/linux/resources/cpu", json!({ "cpus": "4000" })),
            ("/process/args", json!(["/no/such/program"])),
            ("/process/cwd", json!("/bin/busybox/x")),
            ("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 1, "hard": 99_999_999_999_u64 }])),
            ("/linux/devices", json!([{ "path": "/proc/x", "type": "c", "major": 1, "minor": 3 }])),
        ];
        for (pointer, value) in cases {
            stage.write_with(&["/bin/true"], |one| set(one, pointer, value.clone()));
            let said = stage.call(&["create", "--pid-file", "/no/such/folder/pid", &id]).fails();
            assert!(!said.error().contains("pid-file"), "{pointer}: {}", said.error());
            assert_eq!(stage.leftovers(), Vec::<String>::new(), "{pointer} = {value}");
        }
        stage.write(&stage.configuration(&["/bin/true"]));
        stage.call(&["create", "--pid-file", "/no/such/folder/pid", &id]).fails();
        stage.nothing_is_left();
    });
}

#[test]
fn a_record_that_makes_no_sense_is_told_and_not_followed() {
    alone("records are their own", |stage: &Stage| {
        let id = stage.id("c");
        stage.running(&id);
        let path = stage.root().join(&id).join("state.json");
        let good = fs::read_to_string(&path).expect("a record");
        fs::write(&path, "{").expect("written");
        for arguments in [vec!["state", &id], vec!["kill", &id], vec!["delete", "--force", &id]] {
            let said = stage.call(&arguments).fails();
            assert!(said.error().contains("makes no sense"), "{arguments:?}: {}", said.error());
        }
        fs::write(&path, good.replace("\"version\":1", "\"version\":9")).expect("written");
        assert!(stage.call(&["state", &id]).fails().error().contains("of version 9"));
        fs::write(&path, good).expect("written");
        assert_eq!(stage.status(&id), "running");
    });
}

#[test]
fn a_number_that_is_somebody_elses_now_is_left_alone() {
    alone("records are their own", |stage: &Stage| {
        let id = stage.id("c");
        stage.running(&id);
        let mut other = std::process::Command::new("/bin/busybox").args(["sleep", "1000"]).spawn().expect("sleep");
        let path = stage.root().join(&id).join("state.json");
        let good = fs::read_to_string(&path).expect("a record");
        let pid = stage.pid(&id);
        fs::write(&path, good.replace(&format!("\"pid\":{pid}"), &format!("\"pid\":{}", other.id()))).expect("written");
        assert_eq!(stage.status(&id), "stopped");
        stage.call(&["kill", &id, "KILL"]).fails();
        assert!(other.try_wait().expect("wait").is_none());
        fs::write(&path, good).expect("written");
        let _ = other.kill();
        let _ = other.wait();
    });
}
