//! What is left by a runtime that was killed in the middle, or by one that failed.

use std::fs;

use serde_json::json;

use crate::check::alone;
use crate::stage::{Stage, set};

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
                if let Ok(state) = serde_json::from_str::<serde_json::Value>(&stage.call(&["state", &id]).out()) {
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
