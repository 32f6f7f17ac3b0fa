//! Configurations that are wrong: each is refused by its JSON path, and leaves nothing.

use serde_json::{Value, json};

use crate::check::alone;
use crate::stage::{Stage, set};

/// (pointer, value, what the refusal begins with).
fn wrong() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("/ociVersion", json!("2.0.0"), "ociVersion: "),
        ("/process/args", json!([]), "process.args: "),
        ("/process/args", json!("sh"), "process.args: "),
        ("/process/cwd", json!("work"), "process.cwd: "),
        ("/process/user/uid", json!(-1), "process.user.uid: "),
        ("/process/rlimits", json!([{ "type": "RLIMIT_NOPE", "soft": 1, "hard": 1 }]), "process.rlimits[0].type: "),
        ("/process/rlimits", json!([{ "type": "RLIMIT_CPU", "soft": 2, "hard": 1 }]), "process.rlimits[0].soft: "),
        ("/process/capabilities/bounding", json!(["CAP_NOPE"]), "process.capabilities.bounding"),
        ("/process/oomScoreAdj", json!(1001), "process.oomScoreAdj: "),
        ("/process/selinuxLabel", json!("a:b:c:d"), "process.selinuxLabel: not supported"),
        ("/root", json!({}), "root.path: "),
        ("/hostname", json!("x".repeat(65)), "hostname: "),
        ("/linux/namespaces", json!([{ "type": "pid" }]), "linux.namespaces: "),
        ("/linux/namespaces", json!([{ "type": "pid" }, { "type": "pid" }]), "linux.namespaces[1].type: "),
        ("/linux/namespaces", json!([{ "type": "nope" }]), "linux.namespaces[0].type: "),
        ("/linux/namespaces/0", json!({ "type": "pid", "path": "ns" }), "linux.namespaces[0].path: "),
        ("/linux/uidMappings", json!([{ "containerID": 0, "hostID": 0, "size": 1 }]), "linux.uidMappings: "),
        ("/linux/intelRdt", json!({ "closID": "x" }), "linux.intelRdt: not supported"),
        ("/linux/netDevices", json!({ "eth0": {} }), "linux.netDevices: not supported"),
        ("/linux/mountLabel", json!("x"), "linux.mountLabel: not supported"),
        ("/linux/rootfsPropagation", json!("x"), "linux.rootfsPropagation: "),
        ("/linux/maskedPaths", json!(["/ok", "relative"]), "linux.maskedPaths[1]: "),
        ("/linux/sysctl", json!({ "vm.overcommit_memory": "1" }), "linux.sysctl[\"vm.overcommit_memory\"]: "),
        ("/linux/timeOffsets", json!({ "boottime": { "secs": 1 } }), "linux.timeOffsets: "),
        ("/linux/cgroupsPath", json!("/a/../b"), "linux.cgroupsPath: "),
        ("/linux/devices", json!([{ "path": "/dev/x", "type": "p", "major": 0, "minor": 0 }]), "linux.devices[0]: "),
        ("/linux/resources/memory", json!({ "limit": 9000, "swap": 5000 }), "linux.resources.memory.swap: "),
        ("/linux/resources/cpu", json!({ "cpus": "all" }), "linux.resources.cpu.cpus: "),
        (
            "/linux/resources/hugepageLimits",
            json!([{ "pageSize": "x", "limit": 1 }]),
            "linux.resources.hugepageLimits[0].pageSize: ",
        ),
        (
            "/linux/resources/devices",
            json!([{ "allow": true, "type": "c", "access": "x" }]),
            "linux.resources.devices[0].access: ",
        ),
        ("/linux/personality", json!({ "domain": "LINUX", "flags": ["x"] }), "linux.personality.flags: not supported"),
        ("/mounts/0/destination", json!(""), "mounts[0].destination: "),
        ("/mounts/0/type", json!(null), "mounts[0].type: "),
        ("/mounts/0/options", json!(["remount"]), "mounts[0].options: "),
        ("/hooks", json!({ "prestart": [{ "path": "relative" }] }), "hooks.prestart[0].path: "),
        ("/hooks", json!({ "poststop": [{ "path": "/x", "timeout": 0 }] }), "hooks.poststop[0].timeout: "),
        ("/hooks", json!({ "createRuntime": [{}] }), "hooks.createRuntime[0]: missing field `path`"),
        ("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_NOPE" }), "linux.seccomp.defaultAction: "),
        ("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_NOTIFY" }), "linux.seccomp.defaultAction: "),
    ]
}

#[test]
fn what_is_wrong_is_named_by_its_path() {
    alone("their messages are their own", |stage: &Stage| {
        let id = stage.id("c");
        for (pointer, value, begin) in wrong() {
            stage.write_with(&["/bin/true"], |one| set(one, pointer, value.clone()));
            let said = stage.call(&["create", &id]).fails().error();
            let path = stage.path("bundle/config.json");
            let said = said.trim_start_matches("berth-oci: ").trim_start_matches(&format!("{}: ", path.display()));
            assert!(said.starts_with(begin), "{pointer} = {value}: {said:?} does not begin with {begin:?}");
            assert_eq!(stage.leftovers(), Vec::<String>::new(), "{pointer} = {value}");
        }
    });
}

#[test]
fn what_is_no_configuration_is_refused() {
    alone("their messages are their own", |stage: &Stage| {
        let id = stage.id("c");
        for (text, part) in [("{", "EOF"), ("", "EOF"), ("7", "invalid"), ("{\"ociVersion\":1}", "ociVersion: ")] {
            std::fs::write(stage.path("bundle/config.json"), text).expect("a file");
            let said = stage.call(&["create", &id]).fails().error();
            assert!(said.contains(part), "{text:?}: {said}");
        }
        std::fs::remove_file(stage.path("bundle/config.json")).expect("removed");
        assert!(stage.call(&["create", &id]).fails().error().contains("not found"));
        stage.nothing_is_left();
    });
}

#[test]
fn unknown_options_and_commands_are_refused_by_name() {
    alone("their messages are their own", |stage: &Stage| {
        let id = stage.id("c");
        stage.write(&stage.configuration(&["/bin/true"]));
        for (arguments, part) in [
            (vec!["create", "--nope", id.as_str()], "-nope"),
            (vec!["--systemd-cgroup", "create", id.as_str()], "--systemd-cgroup"),
            (vec!["checkpoint", id.as_str()], "checkpoint: not supported"),
            (vec!["frobnicate"], "frobnicate"),
            (vec!["state"], "state"),
            (vec!["create", "--console-socket", "/x", id.as_str()], "console socket"),
        ] {
            let said = stage.call(&arguments).fails().error();
            assert!(said.contains(part), "{arguments:?}: {said}");
        }
        stage.nothing_is_left();
    });
}
