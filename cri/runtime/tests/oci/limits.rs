//! Cgroups.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use crate::check::{all, alone};
use crate::stage::{Stage, cgroup_file, set};

#[test]
fn a_cgroup_has_its_limits() {
    all(|stage| {
        let id = stage.id("c");
        stage.write_with(&["/bin/sleep", "1000"], |one| {
            set(one, "/linux/resources/memory", json!({ "limit": 67_108_864, "reservation": 33_554_432 }));
            set(one, "/linux/resources/cpu", json!({ "shares": 512, "quota": 20_000, "period": 50_000, "cpus": "0" }));
            set(one, "/linux/resources/pids", json!({ "limit": 77 }));
        });
        stage.call(&["create", &id]).ok();
        let cgroup = stage.id("cg");
        assert_eq!(cgroup_file(&cgroup, "memory", "memory.limit_in_bytes", "memory.max"), "67108864");
        assert_eq!(cgroup_file(&cgroup, "memory", "memory.soft_limit_in_bytes", "memory.low"), "33554432");
        assert_eq!(cgroup_file(&cgroup, "pids", "pids.max", "pids.max"), "77");
        assert_eq!(cgroup_file(&cgroup, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
        let cpu = cgroup_file(&cgroup, "cpu", "cpu.cfs_quota_us", "cpu.max");
        assert!(cpu == "20000" || cpu == "20000 50000", "{cpu}");
        stage.call(&["delete", "--force", &id]).ok();
        stage.nothing_is_left();
    });
}

#[test]
fn limits_are_changed() {
    all(|stage| {
        let id = stage.id("c");
        stage.running(&id);
        stage.call(&["update", "--pids-limit", "55", "--memory", "67108864", "--cpu-share", "256", &id]).ok();
        let cgroup = stage.id("cg");
        assert_eq!(cgroup_file(&cgroup, "pids", "pids.max", "pids.max"), "55");
        assert_eq!(cgroup_file(&cgroup, "memory", "memory.limit_in_bytes", "memory.max"), "67108864");
        let file = stage.path("resources.json");
        fs::write(&file, json!({ "pids": { "limit": 44 }, "memory": { "limit": 33_554_432 } }).to_string())
            .expect("a file");
        stage.call(&["update", "--resources", file.to_str().expect("text"), &id]).ok();
        assert_eq!(cgroup_file(&cgroup, "pids", "pids.max", "pids.max"), "44");
        assert_eq!(cgroup_file(&cgroup, "memory", "memory.limit_in_bytes", "memory.max"), "33554432");
        stage.call(&["update", "--pids-limit", "many", &id]).fails();
        stage.call(&["kill", &id, "KILL"]).ok();
        stage.wait_stopped(&id);
        stage.call(&["delete", &id]).ok();
    });
}

#[test]
fn limits_come_from_standard_input() {
    all(|stage| {
        let id = stage.id("c");
        stage.running(&id);
        let mut command = stage.command(&["update", "--resources", "-", &id]);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("the runtime");
        let input = child.stdin.take().expect("a pipe");
        { input }.write_all(br#"{"pids":{"limit":33}}"#).expect("written");
        assert!(child.wait().expect("wait").success());
        assert_eq!(cgroup_file(&stage.id("cg"), "pids", "pids.max", "pids.max"), "33");
    });
}

#[test]
fn use_is_shown() {
    all(|stage| {
        let id = stage.id("c");
        stage.running(&id);
        let said = stage.call(&["events", "--stats", &id]).ok().json();
        assert_eq!((said["type"].as_str(), said["id"].as_str()), (Some("stats"), Some(id.as_str())));
        assert_eq!(said.pointer("/data/pids/current").and_then(serde_json::Value::as_u64), Some(1));
        assert!(said.pointer("/data/memory/usage/usage").and_then(serde_json::Value::as_u64).is_some_and(|n| n > 0));
        assert!(said.pointer("/data/cpu/usage/total").and_then(serde_json::Value::as_u64).is_some_and(|n| n > 0));
        stage.call(&["events", "--stats", "no-such-container"]).fails();
    });
}

#[test]
fn a_cgroup_in_use_is_nobody_elses() {
    alone("runc warns before 1.2 and refuses since", |stage: &Stage| {
        let (one, two) = (stage.id("one"), stage.id("two"));
        stage.running(&one);
        stage.call(&["create", &two]).fails();
        assert_eq!(stage.status(&one), "running");
        stage.call(&["state", &two]).fails();
    });
}

#[test]
fn all_processes_of_a_cgroup_are_signalled() {
    all(|stage| {
        let id = stage.id("c");
        stage.running(&id);
        stage.call(&["exec", "--detach", &id, "sleep", "1000"]).ok();
        stage.call(&["kill", "--all", &id, "KILL"]).ok();
        stage.wait_stopped(&id);
        stage.call(&["delete", &id]).ok();
        stage.nothing_is_left();
    });
}

#[test]
fn without_a_pid_namespace_nothing_stays_behind() {
    all(|stage| {
        let id = stage.id("c");
        let script = "sleep 1000 & echo $!; exec sleep 1000";
        stage.write_with(&["/bin/sh", "-c", script], |one| {
            set(one, "/linux/namespaces", json!([{ "type": "mount" }, { "type": "ipc" }]));
            one.as_object_mut().expect("an object").remove("hostname");
        });
        let made = stage.call(&["create", &id]).ok();
        stage.call(&["start", &id]).ok();
        stage.wait_for("a second process", || made.out().ends_with('\n'));
        let second = made.out().trim().to_owned();
        stage.call(&["kill", &id, "KILL"]).ok();
        stage.wait_stopped(&id);
        stage.call(&["delete", &id]).ok();
        stage.wait_for("its end", || {
            fs::read_to_string(format!("/proc/{second}/stat")).map_or(true, |stat| stat.contains(") Z "))
        });
        stage.nothing_is_left();
    });
}

#[test]
fn a_limit_below_what_is_used_is_refused_where_asked() {
    alone("an addition of runc's, which 1.1 has for v2 only", |stage: &Stage| {
        let id = stage.id("c");
        stage.running(&id);
        let file = stage.path("resources.json");
        let limit = json!({ "memory": { "limit": 4096, "checkBeforeUpdate": true } });
        fs::write(&file, limit.to_string()).expect("a file");
        let said = stage.call(&["update", "--resources", file.to_str().expect("text"), &id]).fails();
        assert!(said.error().contains("linux.resources.memory.limit"), "{}", said.error());
    });
}

/// What little memory a container can start with is asked of it all the same: it starts, or the cause is named.
#[test]
fn with_little_memory_a_container_starts_or_says_why() {
    alone("references name no field", |stage: &Stage| {
        let with = |limit: u64| {
            stage.write_with(&["/bin/true"], |one| set(one, "/linux/resources/memory", json!({ "limit": limit })));
            stage.run()
        };
        with(4 << 20).ok();
        for limit in [64 << 10, 4096] {
            let said = with(limit).fails();
            // The kernel decides how far it comes: to its program, which is killed then, or not.
            let told = said.error().contains("linux.resources.memory.limit");
            assert!(
                told || (said.code, said.error().as_str()) == (137, ""),
                "{limit}: {}: {}",
                said.code,
                said.error()
            );
            stage.nothing_is_left();
        }
    });
}
