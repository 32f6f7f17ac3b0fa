//! From create to delete.

use std::fs;

use serde_json::Value;

use crate::check::{all, alone};
use crate::stage::Stage;

#[test]
fn a_container_goes_through_its_states() {
    all(|stage| {
        let id = stage.id("c");
        stage.write(&stage.configuration(&["/bin/sh", "-c", "echo it runs"]));
        let pid_file = stage.path("pid");
        let made = stage.call(&["create", "--pid-file", pid_file.to_str().expect("text"), &id]).ok();
        let state = stage.state(&id);
        assert_eq!(state["status"], "created");
        assert_eq!(state["id"], id.as_str());
        assert_eq!(state["bundle"].as_str().map(str::to_owned), stage.path("bundle").to_str().map(str::to_owned));
        assert!(state["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")), "{state}");
        let pid = state["pid"].as_i64().expect("a pid");
        assert_eq!(fs::read_to_string(&pid_file).expect("the pid").trim(), pid.to_string());
        assert!(fs::metadata(format!("/proc/{pid}")).is_ok() && made.out().is_empty());
        stage.call(&["start", &id]).ok();
        stage.wait_stopped(&id);
        assert_eq!(stage.pid(&id), 0);
        assert_eq!(made.out(), "it runs\n");
        stage.call(&["delete", &id]).ok();
        stage.call(&["state", &id]).fails();
        stage.call(&["delete", &id]).fails();
        stage.nothing_is_left();
    });
}

#[test]
fn a_running_container_is_not_deleted_without_force() {
    all(|stage| {
        let id = stage.id("c");
        stage.running(&id);
        assert_eq!(stage.status(&id), "running");
        stage.call(&["delete", &id]).fails();
        assert_eq!(stage.status(&id), "running");
        stage.call(&["delete", "--force", &id]).ok();
        stage.call(&["state", &id]).fails();
        stage.call(&["delete", "--force", &id]).ok();
        stage.nothing_is_left();
    });
}

#[test]
fn a_container_that_waits_can_be_deleted() {
    all(|stage| {
        let id = stage.id("c");
        stage.write(&stage.configuration(&["/bin/true"]));
        stage.call(&["create", &id]).ok();
        stage.call(&["delete", "--force", &id]).ok();
        stage.nothing_is_left();
    });
}

#[test]
fn nothing_is_started_twice() {
    all(|stage| {
        let id = stage.id("c");
        stage.running(&id);
        stage.call(&["start", &id]).fails();
        assert_eq!(stage.status(&id), "running");
        stage.call(&["kill", &id, "KILL"]).ok();
        stage.wait_stopped(&id);
        stage.call(&["start", &id]).fails();
        stage.call(&["start", "no-such-container"]).fails();
    });
}

#[test]
fn an_id_is_taken_once() {
    all(|stage| {
        let id = stage.id("c");
        stage.running(&id);
        let pid = stage.pid(&id);
        let said = stage.call(&["create", &id]).fails();
        assert!(said.error().contains("exist"), "{}", said.error());
        assert_eq!((stage.status(&id), stage.pid(&id)), ("running".to_owned(), pid));
        for bad in ["a/b", "..", "a b", ""] {
            stage.call(&["create", bad]).fails();
        }
    });
}

#[test]
fn signals_reach_the_first_process() {
    all(|stage| {
        let id = stage.id("c");
        let script = "trap 'echo got it; exit 0' USR1; echo ready; while :; do sleep 0.02; done";
        stage.write(&stage.configuration(&["/bin/sh", "-c", script]));
        let made = stage.call(&["create", &id]).ok();
        stage.call(&["start", &id]).ok();
        stage.wait_for("the trap", || made.out().contains("ready"));
        stage.call(&["kill", &id, "SIGNOPE"]).fails();
        assert_eq!(stage.status(&id), "running");
        stage.call(&["kill", &id, "USR1"]).ok();
        stage.wait_stopped(&id);
        assert!(made.out().ends_with("got it\n"), "{}", made.out());
        stage.call(&["kill", &id, "9"]).fails();
        stage.call(&["kill", "no-such-container", "9"]).fails();
    });
}

#[test]
fn a_container_that_waits_can_be_killed() {
    all(|stage| {
        let id = stage.id("c");
        stage.write(&stage.configuration(&["/bin/true"]));
        stage.call(&["create", &id]).ok();
        stage.call(&["kill", &id, "KILL"]).ok();
        stage.wait_stopped(&id);
        stage.call(&["start", &id]).fails();
        stage.call(&["delete", &id]).ok();
        stage.nothing_is_left();
    });
}

#[test]
fn run_gives_the_exit_code() {
    all(|stage| {
        stage.write(&stage.configuration(&["/bin/sh", "-c", "exit 7"]));
        assert_eq!(stage.run().code, 7);
        stage.write(&stage.configuration(&["/bin/sh", "-c", "kill -9 $$"]));
        // In a PID namespace of its own nobody can kill process 1 from inside, so it ends by its script's end.
        assert_eq!(stage.run().code, 0);
        stage.write(&stage.configuration(&["/no/such/program"]));
        let said = stage.run().fails();
        assert!(said.error().contains("no such file"), "{}", said.error());
        stage.write(&stage.configuration(&["not-in-path"]));
        let said = stage.run().fails();
        assert!(said.error().contains("executable file") && said.error().contains("not found"), "{}", said.error());
        stage.nothing_is_left();
    });
}

#[test]
fn run_in_the_background_leaves_a_running_container() {
    all(|stage| {
        let id = stage.id("c");
        stage.write(&stage.configuration(&["/bin/sleep", "1000"]));
        stage.call(&["run", "--detach", &id]).ok();
        assert_eq!(stage.status(&id), "running");
        stage.call(&["kill", &id, "KILL"]).ok();
        stage.wait_stopped(&id);
        stage.call(&["delete", &id]).ok();
        stage.nothing_is_left();
    });
}

#[test]
fn a_list_has_all_containers() {
    all(|stage| {
        let (one, two) = (stage.id("one"), stage.id("two"));
        stage.running(&one);
        let mut configuration = stage.configuration(&["/bin/true"]);
        configuration["linux"]["cgroupsPath"] = format!("/{}", stage.id("cg2")).into();
        stage.write(&configuration);
        stage.call(&["create", &two]).ok();
        let list = stage.call(&["list", "--format", "json"]).ok().json();
        let mut found: Vec<(&str, &str)> = list
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| (one["id"].as_str().unwrap_or(""), one["status"].as_str().unwrap_or("")))
            .collect();
        found.sort_unstable();
        assert_eq!(found, [(one.as_str(), "running"), (two.as_str(), "created")]);
        let quiet = stage.call(&["list", "--quiet"]).ok().out();
        let mut quiet: Vec<&str> = quiet.lines().collect();
        quiet.sort_unstable();
        assert_eq!(quiet, [&one, &two]);
        assert!(stage.call(&["list"]).ok().out().lines().count() >= 3);
    });
}

#[test]
fn a_paused_container_stands_still() {
    all(|stage| {
        let id = stage.id("c");
        stage.write(&stage.configuration(&["/bin/sh", "-c", "while :; do echo x; sleep 0.01; done"]));
        let made = stage.call(&["create", &id]).ok();
        stage.call(&["start", &id]).ok();
        stage.wait_for("output", || !made.out().is_empty());
        stage.call(&["pause", &id]).ok();
        assert_eq!(stage.status(&id), "paused");
        // What was said before is still on its way for a moment.
        std::thread::sleep(std::time::Duration::from_millis(100));
        let before = made.out().len();
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert_eq!(made.out().len(), before);
        stage.call(&["exec", &id, "true"]).fails();
        stage.call(&["resume", &id]).ok();
        assert_eq!(stage.status(&id), "running");
        stage.wait_for("more output", || made.out().len() > before);
        stage.call(&["resume", &id]).fails();
        stage.call(&["pause", &id]).ok();
        stage.call(&["delete", "--force", &id]).ok();
        stage.nothing_is_left();
    });
}

#[test]
fn processes_are_listed() {
    all(|stage| {
        let id = stage.id("c");
        stage.running(&id);
        let pid = stage.pid(&id);
        let list = stage.call(&["ps", "--format", "json", &id]).ok().json();
        assert_eq!(list, serde_json::json!([pid]));
        let table = stage.call(&["ps", &id]).ok().out();
        if stage.runtime.name != "crun" {
            assert!(table.contains("sleep 1000") && table.contains("PID"), "{table}");
        }
    });
}

#[test]
fn annotations_are_shown() {
    all(|stage| {
        let id = stage.id("c");
        stage.write_with(&["/bin/true"], |one| one["annotations"] = serde_json::json!({ "org.example": "yes" }));
        stage.call(&["create", &id]).ok();
        assert_eq!(stage.state(&id)["annotations"]["org.example"], "yes");
        stage.call(&["delete", "--force", &id]).ok();
    });
}

#[test]
fn features_and_examples_are_printed() {
    alone("crun 1.8.1 has no features, and each has its own example", |stage: &Stage| {
        let features = stage.call(&["features"]).ok().json();
        assert_eq!(features["ociVersionMax"], "1.3.0");
        for list in ["/hooks", "/mountOptions", "/linux/namespaces", "/linux/capabilities", "/linux/seccomp/actions"] {
            assert!(features.pointer(list).and_then(Value::as_array).is_some_and(|list| list.len() > 4), "{list}");
        }
        stage.call(&["spec"]).ok();
        stage.call(&["spec"]).fails();
        let text = fs::read_to_string(stage.path("bundle/config.json")).expect("an example");
        let mut example: Value = serde_json::from_str(&text).expect("JSON");
        example["process"]["terminal"] = false.into();
        example["process"]["args"] = serde_json::json!(["/bin/echo", "example"]);
        example["process"]["env"] = serde_json::json!(["PATH=/bin"]);
        stage.write(&example);
        assert_eq!(stage.run().ok().out(), "example\n");
        assert!(stage.call(&["--version"]).ok().out().contains("spec: 1.3.0"));
    });
}
