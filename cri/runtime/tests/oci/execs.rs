//! Processes that join a container.

use std::fs;

use serde_json::json;

use crate::check::{all, alone};
use crate::stage::{Stage, set};

#[test]
fn an_exec_is_in_the_container() {
    all(|stage| {
        let id = stage.id("c");
        stage.running(&id);
        let said = stage.call(&["exec", &id, "sh", "-c", "echo $WORD; hostname; cat /proc/1/cmdline; exit 5"]);
        assert_eq!(said.code, 5, "{}", said.error());
        assert_eq!(said.out().replace('\0', " "), "of the configuration\nstage\n/bin/sleep 1000 ");
        assert_eq!(stage.status(&id), "running");
    });
}

#[test]
fn an_exec_has_its_own_environment_folder_and_user() {
    all(|stage| {
        let id = stage.id("c");
        stage.running(&id);
        let script = "echo $WORD $MORE; pwd; id -u; id -g";
        let user = ["exec", "-e", "MORE=more", "--cwd", "/work", "-u", "1000:1001", &id, "sh", "-c", script];
        assert_eq!(stage.call(&user).ok().out(), "of the configuration more\n/work\n1000\n1001\n");
        // A number is a number, whatever the image calls so.
        fs::write(stage.rootfs().join("etc/passwd"), "1:x:0:0::/root:/bin/sh\n").expect("users");
        assert_eq!(stage.call(&["exec", "-u", "1", &id, "id", "-u"]).ok().out(), "1\n");
    });
}

#[test]
fn a_process_may_come_from_a_file() {
    all(|stage| {
        let id = stage.id("c");
        stage.running(&id);
        let process = json!({
            "user": { "uid": 1000, "gid": 1000, "additionalGids": [7, 8] },
            "args": ["sh", "-c", "id -G; echo $ONLY$WORD; grep CapEff /proc/self/status"],
            "env": ["PATH=/bin", "ONLY=this"],
            "cwd": "/work",
        });
        let file = stage.path("process.json");
        fs::write(&file, process.to_string()).expect("a file");
        let said = stage.call(&["exec", "--process", file.to_str().expect("text"), &id]).ok();
        assert_eq!(said.out(), "1000 7 8\nthis\nCapEff:\t0000000000000000\n");
    });
}

#[test]
fn an_exec_may_stay_behind() {
    all(|stage| {
        let id = stage.id("c");
        stage.running(&id);
        let file = stage.path("exec-pid");
        let file_name = file.to_str().expect("text");
        stage.call(&["exec", "--detach", "--pid-file", file_name, &id, "sleep", "1000"]).ok();
        let pid = fs::read_to_string(&file).expect("a pid");
        let name = fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("it lives").replace('\0', " ");
        assert_eq!(name, "sleep 1000 ");
        let list = stage.call(&["ps", "--format", "json", &id]).ok().json();
        assert_eq!(list.as_array().map(Vec::len), Some(2));
        stage.call(&["delete", "--force", &id]).ok();
        stage.wait_for("its end", || fs::metadata(format!("/proc/{pid}/root/bin")).is_err());
        stage.nothing_is_left();
    });
}

#[test]
fn what_can_not_be_run_is_said() {
    all(|stage| {
        let id = stage.id("c");
        stage.running(&id);
        let said = stage.call(&["exec", &id, "no-such-program"]).fails();
        assert!(said.error().contains("executable file") && said.error().contains("not found"), "{}", said.error());
        stage.call(&["exec", &id, "/etc"]).fails();
        stage.call(&["exec", "--cwd", "/no/such/folder/of/root", "-u", "1000", &id, "true"]);
        stage.call(&["exec", "no-such-container", "true"]).fails();
        stage.call(&["kill", &id, "KILL"]).ok();
        stage.wait_stopped(&id);
        stage.call(&["exec", &id, "true"]).fails();
    });
}

#[test]
fn an_exec_is_in_the_containers_cgroup() {
    all(|stage| {
        let id = stage.id("c");
        stage.running(&id);
        let inside = stage.call(&["exec", &id, "sh", "-c", "grep -e pids -e '^0:' /proc/self/cgroup; true"]).ok().out();
        let pid = stage.pid(&id);
        let first = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroup");
        let line = inside.lines().next().expect("a line");
        assert!(first.contains(line), "{line} is not in {first}");
        assert!(line.contains(&stage.id("cg")), "{line}");
    });
}

#[test]
fn an_exec_gets_no_more_than_the_container() {
    all(|stage| {
        let id = stage.id("c");
        stage.running(&id);
        let read = |pid: &str| format!("grep -e Cap -e NoNewPrivs /proc/{pid}/status");
        let own = stage.call(&["exec", &id, "sh", "-c", &read("self")]).ok().out();
        let first = stage.call(&["exec", &id, "sh", "-c", &read("1")]).ok().out();
        assert_eq!(own, first);
        // Inheritable capabilities would be one more way to get them back (CVE-2022-29162).
        assert!(own.contains("CapInh:\t0000000000000000"), "{own}");
        let more = stage.call(&["exec", "--cap", "CAP_NET_ADMIN", &id, "sh", "-c", "grep CapBnd /proc/self/status"]);
        let bounding = u64::from_str_radix(more.ok().out().trim().trim_start_matches("CapBnd:\t"), 16).expect("hex");
        assert_ne!(bounding & 1 << 12, 0);
    });
}

#[test]
fn a_paused_container_takes_an_exec_that_ignores_it() {
    alone("crun has no --ignore-paused", |stage: &Stage| {
        let id = stage.id("c");
        stage.running(&id);
        stage.call(&["pause", &id]).ok();
        let said = stage.call(&["exec", &id, "true"]).fails();
        assert_eq!(said.code, 255);
        assert!(said.error().contains("paused"), "{}", said.error());
        stage.call(&["resume", &id]).ok();
        stage.call(&["exec", "--ignore-paused", &id, "true"]).ok();
    });
}

#[test]
fn home_comes_from_the_containers_users() {
    all(|stage| {
        assert_eq!(stage.says_with("echo $HOME", |_| {}), "/root");
        let user = |one: &mut serde_json::Value| set(one, "/process/user", json!({ "uid": 1000, "gid": 1000 }));
        assert_eq!(stage.says_with("echo $HOME", user), "/home/app");
        let own = |one: &mut serde_json::Value| set(one, "/process/env", json!(["PATH=/bin", "HOME=/mine"]));
        assert_eq!(stage.says_with("echo $HOME", own), "/mine");
    });
}
