//! Namespaces: new ones, the host's, and those of others.

use std::fs;

use serde_json::{Value, json};

use crate::check::{all, alone};
use crate::stage::{Stage, push, set};

const KINDS: [&str; 6] = ["pid", "net", "ipc", "uts", "mnt", "cgroup"];

fn read(kind: &str, pid: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace").to_string_lossy().into_owned()
}

#[test]
fn what_is_listed_is_new_and_the_rest_is_the_hosts() {
    all(|stage| {
        let id = stage.id("c");
        let listed = json!([{ "type": "mount" }, { "type": "pid" }, { "type": "cgroup" }]);
        stage.write_with(&["/bin/sleep", "1000"], |one| {
            set(one, "/linux/namespaces", listed);
            one.as_object_mut().expect("an object").remove("hostname");
        });
        stage.call(&["create", &id]).ok();
        let pid = stage.pid(&id).to_string();
        for kind in KINDS {
            let new = ["pid", "mnt", "cgroup"].contains(&kind);
            assert_eq!(read(kind, &pid) != read(kind, "self"), new, "{kind}");
        }
        stage.call(&["delete", "--force", &id]).ok();
    });
}

#[test]
fn namespaces_of_another_container_are_joined() {
    all(|stage| {
        let (first, second) = (stage.id("first"), stage.id("second"));
        stage.running(&first);
        let pid = stage.pid(&first);
        let path = |kind: &str, name: &str| json!({ "type": kind, "path": format!("/proc/{pid}/ns/{name}") });
        let listed = json!([
            { "type": "mount" },
            path("pid", "pid"),
            path("network", "net"),
            path("ipc", "ipc"),
            path("uts", "uts"),
        ]);
        let script = "hostname; ps | grep -c 'sleep 1000'; ls -l /proc/self/ns > /work/ns; exec sleep 1000";
        stage.write_with(&["/bin/sh", "-c", script], |one| {
            set(one, "/linux/namespaces", listed);
            set(one, "/linux/cgroupsPath", json!(format!("/{}", stage.id("cg2"))));
            one.as_object_mut().expect("an object").remove("hostname");
        });
        let made = stage.call(&["create", &second]).ok();
        let other = stage.pid(&second).to_string();
        for kind in ["pid", "net", "ipc", "uts"] {
            assert_eq!(read(kind, &other), read(kind, &pid.to_string()), "{kind}");
        }
        assert_ne!(read("mnt", &other), read("mnt", &pid.to_string()));
        stage.call(&["start", &second]).ok();
        stage.wait_for("its words", || made.out().lines().count() == 2);
        assert!(made.out().starts_with("stage\n"), "{}", made.out());
        // What is in somebody else's PID namespace is not ended with its first process there.
        stage.call(&["kill", &second, "KILL"]).ok();
        stage.wait_stopped(&second);
        assert_eq!(stage.status(&first), "running");
        stage.call(&["delete", &second]).ok();
        stage.call(&["delete", "--force", &first]).ok();
        stage.nothing_is_left();
    });
}

#[test]
fn a_path_that_is_no_such_namespace_is_refused() {
    all(|stage| {
        let id = stage.id("c");
        for path in ["/proc/self/ns/ipc", "/no/such/file", "/etc/passwd"] {
            stage.write_with(&["/bin/true"], |one| {
                set(one, "/linux/namespaces/1", json!({ "type": "network", "path": path }));
            });
            stage.call(&["create", &id]).fails();
            stage.call(&["state", &id]).fails();
        }
        stage.nothing_is_left();
    });
}

/// Ids 0 and up are 100000 and up outside; the root file system is theirs.
fn in_user_namespace(stage: &Stage, configuration: &mut Value) {
    push(configuration, "/linux/namespaces", json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 2000 }]);
    set(configuration, "/linux/uidMappings", map.clone());
    set(configuration, "/linux/gidMappings", map);
    let status = std::process::Command::new("chown").args(["-hR", "100000:100000"]).arg(stage.rootfs()).status();
    assert!(status.expect("chown").success());
    // Folders of the test's that others can't enter would keep the ids outside from getting there.
    for folder in stage.rootfs().ancestors().take(3) {
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(folder, open).expect("permissions");
    }
}

#[test]
fn a_user_namespace_has_its_ids() {
    all(|stage| {
        let script = "id -u; cat /proc/self/uid_map; stat -c %u /bin /proc/self/status; touch /work/made && echo wrote";
        let said = stage.says_with(script, |one| in_user_namespace(stage, one));
        let words: Vec<&str> = said.split_whitespace().collect();
        assert_eq!(words, ["0", "0", "100000", "2000", "0", "0", "wrote"]);
        let made = fs::metadata(stage.rootfs().join("work/made")).expect("it was made");
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 100_000);
        stage.nothing_is_left();
    });
}

#[test]
fn an_exec_joins_a_user_namespace() {
    all(|stage| {
        let id = stage.id("c");
        stage.write_with(&["/bin/sleep", "1000"], |one| in_user_namespace(stage, one));
        stage.call(&["create", &id]).ok();
        stage.call(&["start", &id]).ok();
        let said = stage.call(&["exec", &id, "sh", "-c", "id -u; cat /proc/self/uid_map; ls -l /dev/null"]).ok().out();
        assert!(said.starts_with("0\n") && said.contains("100000"), "{said}");
        let said = stage.call(&["exec", "-u", "7", &id, "id", "-u"]).ok().out();
        assert_eq!(said, "7\n");
        stage.call(&["delete", "--force", &id]).ok();
    });
}

#[test]
fn a_user_namespace_of_another_container_is_joined() {
    all(|stage| {
        let (first, second) = (stage.id("first"), stage.id("second"));
        stage.write_with(&["/bin/sleep", "1000"], |one| in_user_namespace(stage, one));
        stage.call(&["create", &first]).ok();
        stage.call(&["start", &first]).ok();
        let pid = stage.pid(&first);
        let path = |kind: &str, name: &str| json!({ "type": kind, "path": format!("/proc/{pid}/ns/{name}") });
        let listed = json!([{ "type": "mount" }, { "type": "pid" }, path("user", "user"), path("network", "net")]);
        let script = "id -u; cat /proc/self/uid_map";
        stage.write_with(&["/bin/sh", "-c", script], |one| {
            in_user_namespace(stage, one);
            set(one, "/linux/namespaces", listed);
            set(one, "/linux/cgroupsPath", json!(format!("/{}", stage.id("cg2"))));
            one.as_object_mut().expect("an object").remove("hostname");
        });
        let said = stage.call(&["run", &second]).ok().out();
        let words: Vec<&str> = said.split_whitespace().collect();
        assert_eq!(words, ["0", "0", "100000", "2000"]);
        stage.call(&["delete", "--force", &first]).ok();
        stage.nothing_is_left();
    });
}

#[test]
fn hostname_and_domainname_are_set() {
    all(|stage| assert_eq!(stage.says_with("hostname", |_| {}), "stage"));
    alone("runc 1.1 and crun 1.8.1 do not know domainname", |stage: &Stage| {
        let said = stage.says_with("cat /proc/sys/kernel/domainname", |one| one["domainname"] = "domain".into());
        assert_eq!(said, "domain");
    });
    all(|stage| {
        // Without a namespace of its own the host's name would change.
        let before = fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
        stage.write_with(&["/bin/true"], |one| {
            set(one, "/linux/namespaces", json!([{ "type": "mount" }, { "type": "pid" }]))
        });
        stage.run().fails();
        assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").expect("a name"), before);
    });
}

#[test]
fn parameters_are_set_in_the_containers_namespaces_only() {
    all(|stage| {
        let wanted = json!({ "net.ipv4.ip_forward": "1", "kernel.msgmax": "4242" });
        let before = fs::read_to_string("/proc/sys/kernel/msgmax").expect("a parameter");
        let said = stage.says_with("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax", |one| {
            set(one, "/linux/sysctl", wanted);
        });
        assert_eq!(said, "1\n4242");
        assert_eq!(fs::read_to_string("/proc/sys/kernel/msgmax").expect("a parameter"), before);
        let id = stage.id("c");
        for bad in ["kernel.core_pattern", "vm.swappiness", "net.../../kernel/core_pattern"] {
            stage.write_with(&["/bin/true"], |one| set(one, "/linux/sysctl", json!({ bad: "60" })));
            stage.call(&["create", &id]).fails();
        }
        stage.nothing_is_left();
    });
}

#[test]
fn a_time_namespace_has_its_own_clocks() {
    alone("runc has them since 1.2, crun since 1.9", |stage: &Stage| {
        let script = "cat /proc/uptime";
        let said = stage.says_with(script, |one| {
            push(one, "/linux/namespaces", json!({ "type": "time" }));
            set(one, "/linux/timeOffsets", json!({ "boottime": { "secs": 1_000_000 }, "monotonic": { "secs": 7 } }));
        });
        // However long the machine itself has been up.
        let is_shifted = |said: &str| {
            let seconds = said.split(' ').next().and_then(|text| text.parse::<f64>().ok()).expect("seconds");
            seconds >= 1_000_000.0
        };
        assert!(is_shifted(&said), "{said}");
        // An exec sees the same clocks.
        let id = stage.id("c");
        stage.write_with(&["/bin/sleep", "1000"], |one| {
            push(one, "/linux/namespaces", json!({ "type": "time" }));
            set(one, "/linux/timeOffsets", json!({ "boottime": { "secs": 1_000_000 } }));
        });
        stage.call(&["create", &id]).ok();
        stage.call(&["start", &id]).ok();
        let said = stage.call(&["exec", &id, "cat", "/proc/uptime"]).ok().out();
        assert!(is_shifted(&said), "{said}");
        stage.write_with(&["/bin/true"], |one| set(one, "/linux/timeOffsets", json!({ "boottime": { "secs": 1 } })));
        stage.call(&["create", &stage.id("d")]).fails();
    });
}
