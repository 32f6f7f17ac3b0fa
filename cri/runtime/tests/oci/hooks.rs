//! Hooks of all six kinds.

use std::fs;

use serde_json::{Value, json};

use crate::check::all;
use crate::stage::Stage;

const KINDS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A hook on the host that notes its name and what it reads, or does something else.
fn on_host(stage: &Stage, kind: &str, then: &str) -> Value {
    let note = stage.path("notes");
    let script = format!("echo {kind} $(cat) >> {}; {then}", note.display());
    json!({ "path": "/bin/busybox", "args": ["sh", "-c", script] })
}

/// The host's file system is out of reach for the last one before the program.
fn hook(stage: &Stage, kind: &str, then: &str) -> Value {
    if kind == "startContainer" {
        json!({ "path": "/bin/sh", "args": ["sh", "-c", format!("echo {kind} $(cat) >> /work/notes; {then}")] })
    } else {
        on_host(stage, kind, then)
    }
}

fn notes(stage: &Stage) -> Vec<(String, Value)> {
    let mut text = fs::read_to_string(stage.path("notes")).unwrap_or_default();
    text.push_str(&fs::read_to_string(stage.rootfs().join("work/notes")).unwrap_or_default());
    let line = |line: &str| {
        let (kind, state) = line.split_once(' ').expect("a state");
        (kind.to_owned(), serde_json::from_str(state).unwrap_or_else(|error| panic!("{error}: {state}")))
    };
    text.lines().map(line).collect()
}

fn all_hooks(stage: &Stage) -> Value {
    KINDS.iter().map(|kind| ((*kind).to_owned(), json!([hook(stage, kind, "true")]))).collect()
}

#[test]
fn each_hook_is_run_at_its_time_with_the_state() {
    all(|stage| {
        let id = stage.id("c");
        let hooks = all_hooks(stage);
        stage.write_with(&["/bin/sleep", "1000"], |one| one["hooks"] = hooks);
        stage.call(&["create", &id]).ok();
        let created: Vec<String> = notes(stage).into_iter().map(|(kind, _)| kind).collect();
        // runc runs poststart already here.
        assert_eq!(created[..3], ["prestart", "createRuntime", "createContainer"]);
        let pid = stage.pid(&id);
        stage.call(&["start", &id]).ok();
        stage.call(&["kill", &id, "KILL"]).ok();
        stage.wait_stopped(&id);
        stage.call(&["delete", &id]).ok();
        let notes = notes(stage);
        let mut kinds: Vec<&str> = notes.iter().map(|(kind, _)| kind.as_str()).collect();
        kinds.sort_unstable();
        let mut wanted = KINDS;
        wanted.sort_unstable();
        assert_eq!(kinds, wanted);
        let bundle = stage.path("bundle");
        for (kind, state) in &notes {
            assert_eq!(state["id"], id.as_str(), "{kind}");
            assert_eq!(state["bundle"].as_str(), bundle.to_str(), "{kind}");
            assert!(state["ociVersion"].is_string() && state["status"].is_string(), "{kind}: {state}");
        }
        let of = |wanted: &str| &notes.iter().find(|(kind, _)| kind == wanted).expect("it ran").1;
        assert_eq!(of("createRuntime")["pid"].as_i64(), Some(pid));
        assert_eq!(of("poststop")["status"], "stopped");
    });
}

#[test]
fn a_hook_that_fails_before_the_program_ends_it_all() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        fail_at_create(kind);
    }
}

fn fail_at_create(kind: &str) {
    match kind {
        "prestart" => all(|stage| fails(stage, "prestart")),
        "createRuntime" => all(|stage| fails(stage, "createRuntime")),
        _ => all(|stage| fails(stage, "createContainer")),
    }
}

fn fails(stage: &Stage, kind: &str) {
    let id = stage.id("c");
    let hook = hook(stage, kind, "echo because >&2; exit 3");
    stage.write_with(&["/bin/touch", "/work/ran"], |one| one["hooks"] = json!({ kind: [hook] }));
    let said = stage.call(&["create", &id]).fails();
    if stage.runtime.name == "berth-oci" {
        let message = format!("error running {kind} hook #0: exit status: 3, output: because");
        assert!(said.error().contains(&message), "{}", said.error());
    }
    stage.call(&["state", &id]).fails();
    assert!(!stage.rootfs().join("work/ran").exists());
    stage.nothing_is_left();
}

#[test]
fn a_hook_that_fails_at_start_keeps_the_program_from_running() {
    all(|stage| {
        let id = stage.id("c");
        let hook = hook(stage, "startContainer", "exit 3");
        stage.write_with(&["/bin/touch", "/work/ran"], |one| one["hooks"] = json!({ "startContainer": [hook] }));
        stage.call(&["create", &id]).ok();
        stage.call(&["start", &id]);
        stage.wait_stopped(&id);
        assert!(!stage.rootfs().join("work/ran").exists());
        assert_eq!(notes(stage).len(), 1);
        stage.call(&["delete", &id]).ok();
        stage.nothing_is_left();
    });
}

#[test]
fn a_hook_that_fails_after_the_end_changes_nothing() {
    all(|stage| {
        let id = stage.id("c");
        let hooks = [hook(stage, "poststop", "exit 3"), hook(stage, "poststop", "true")];
        stage.write_with(&["/bin/true"], |one| one["hooks"] = json!({ "poststop": hooks }));
        stage.call(&["run", &id]).ok();
        stage.call(&["state", &id]).fails();
        assert_eq!(notes(stage).len(), 2);
        stage.nothing_is_left();
    });
}

#[test]
fn a_hook_has_its_time() {
    all(|stage| {
        let id = stage.id("c");
        let mut hook = hook(stage, "prestart", "exec sleep 1000");
        hook["timeout"] = 1.into();
        stage.write_with(&["/bin/true"], |one| one["hooks"] = json!({ "prestart": [hook] }));
        stage.call(&["create", &id]).fails();
        stage.nothing_is_left();
    });
}

#[test]
fn hooks_before_the_change_of_roots_see_host_and_container() {
    all(|stage| {
        let id = stage.id("c");
        // In the container's namespaces, on the host's file system.
        let seen = stage.path("seen");
        let script = format!("cat > /dev/null; readlink /proc/self/ns/net > {}", seen.display());
        let hook = json!({ "path": "/bin/busybox", "args": ["sh", "-c", script], "env": ["PATH=/bin"] });
        stage.write_with(&["/bin/true"], |one| one["hooks"] = json!({ "createContainer": [hook] }));
        stage.call(&["create", &id]).ok();
        let text = fs::read_to_string(&seen).expect("the hook ran");
        let inside = fs::read_link(format!("/proc/{}/ns/net", stage.pid(&id))).expect("a namespace");
        assert_eq!(text.trim_end(), inside.to_str().expect("text"));
        stage.call(&["delete", "--force", &id]).ok();
    });
}
