//! Mounts, masks and devices.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::check::{all, alone};
use crate::stage::{Stage, push, set};

fn bind(stage: &Stage, options: &[&str]) -> (std::path::PathBuf, Value) {
    let source = stage.path("source");
    fs::create_dir_all(source.join("below")).expect("a folder");
    fs::write(source.join("file"), "bound").expect("a file");
    let mount = json!({ "destination": "/bound", "type": "bind", "source": source, "options": options });
    (source, mount)
}

#[test]
fn folders_and_files_are_bound() {
    all(|stage| {
        let (source, mount) = bind(stage, &["rbind", "rw"]);
        let said = stage.says_with("cat /bound/file /single; echo new > /bound/new", |one| {
            push(one, "/mounts", mount);
            let file = json!({ "destination": "/single", "source": source.join("file"), "options": ["bind", "ro"] });
            push(one, "/mounts", file);
        });
        assert_eq!(said, "boundbound");
        assert_eq!(fs::read_to_string(source.join("new")).expect("it was written"), "new\n");
        stage.nothing_is_left();
    });
}

#[test]
fn a_relative_source_is_in_the_bundle() {
    all(|stage| {
        fs::create_dir(stage.path("bundle/inside")).expect("a folder");
        fs::write(stage.path("bundle/inside/file"), "of the bundle").expect("a file");
        let mount = json!({ "destination": "/bound", "type": "bind", "source": "inside", "options": ["bind"] });
        assert_eq!(stage.says_with("cat /bound/file", |one| push(one, "/mounts", mount)), "of the bundle");
    });
}

#[test]
fn read_only_means_it() {
    all(|stage| {
        let (source, mount) = bind(stage, &["bind", "ro", "nosuid", "nodev", "noexec"]);
        let script = "touch /bound/no 2> /dev/null || echo refused; grep ' /bound ' /proc/self/mounts";
        let said = stage.says_with(script, |one| push(one, "/mounts", mount));
        assert!(said.starts_with("refused\n"), "{said}");
        for word in ["ro,", "nosuid,", "nodev,", "noexec,"] {
            assert!(said.contains(word), "{word} in {said}");
        }
        assert!(!source.join("no").exists());
        let said =
            stage.says_with("touch /no 2> /dev/null || echo refused", |one| set(one, "/root/readonly", json!(true)));
        assert_eq!(said, "refused");
    });
}

/// A mount below a bound folder stays what it was with `ro`, and becomes read-only with `rro`.
#[test]
fn recursively_read_only_means_all_of_it() {
    all(|stage| {
        let (source, mount) = bind(stage, &["rbind", "rro"]);
        let below = source.join("below");
        let status = std::process::Command::new("mount").args(["-t", "tmpfs", "below"]).arg(&below).status();
        assert!(status.expect("mount").success());
        let script = "touch /bound/below/no 2> /dev/null || echo refused";
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            stage.says_with(script, |one| push(one, "/mounts", mount))
        }));
        let status = std::process::Command::new("umount").arg(&below).status();
        assert!(status.expect("umount").success());
        assert_eq!(outcome.expect("it runs"), "refused");
    });
}

#[test]
fn new_file_systems_have_their_options() {
    all(|stage| {
        let mount = json!({ "destination": "/small", "type": "tmpfs", "source": "small",
                            "options": ["size=64k", "mode=1770", "uid=7", "nosuid"] });
        let said = stage.says_with("stat -c '%a %u' /small; grep ' /small ' /proc/self/mounts", |one| {
            push(one, "/mounts", mount);
        });
        assert!(said.starts_with("1770 7\nsmall /small tmpfs ") && said.contains("size=64k"), "{said}");
    });
    all(|stage| {
        let mount = json!({ "destination": "/small", "type": "tmpfs", "source": "x", "options": ["nonsense=1"] });
        stage.write_with(&["/bin/true"], |one| push(one, "/mounts", mount));
        stage.run().fails();
        stage.nothing_is_left();
    });
}

#[test]
fn a_new_file_system_may_start_with_what_it_covers() {
    all(|stage| {
        fs::create_dir_all(stage.rootfs().join("full/folder")).expect("folders");
        fs::write(stage.rootfs().join("full/folder/file"), "copied").expect("a file");
        std::os::unix::fs::symlink("folder/file", stage.rootfs().join("full/link")).expect("a link");
        let mount = json!({ "destination": "/full", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"] });
        let said =
            stage.says_with("cat /full/link; echo; touch /full/new; grep -c ' /full tmpfs' /proc/self/mounts", |one| {
                push(one, "/mounts", mount);
            });
        assert_eq!(said, "copied\n1");
        assert!(!stage.rootfs().join("full/new").exists());
    });
}

#[test]
fn paths_are_masked_and_made_read_only() {
    all(|stage| {
        fs::write(stage.rootfs().join("secret"), "secret").expect("a file");
        fs::create_dir_all(stage.rootfs().join("hidden/below")).expect("folders");
        let script = "cat /secret; ls /hidden; cat /proc/kcore; touch /work/no 2> /dev/null || echo refused";
        let said = stage.says_with(script, |one| {
            set(one, "/linux/maskedPaths", json!(["/secret", "/hidden", "/proc/kcore", "/not/there"]));
            set(one, "/linux/readonlyPaths", json!(["/work", "/proc/sys", "/not/there"]));
        });
        assert_eq!(said, "refused");
    });
}

#[test]
fn devices_are_there_and_others_are_out_of_reach() {
    all(|stage| {
        let device =
            json!({ "path": "/dev/own", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8 });
        let script = "stat -c '%a %u %g %t:%T' /dev/own; for one in null zero full random urandom tty; do \
                      test -c /dev/$one || echo no $one; done; readlink /dev/fd; readlink /dev/ptmx; \
                      mknod /work/kmsg c 1 11 && cat /work/kmsg 2> /dev/null || echo denied";
        let said = stage.says_with(script, |one| {
            set(one, "/linux/devices", json!([device]));
        });
        assert_eq!(said, "640 7 8 1:5\n/proc/self/fd\npts/ptmx\ndenied");
    });
    all(|stage| {
        let allow = json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm" });
        let script = "mknod /work/kmsg c 1 11; exec 3>/work/kmsg && echo opened";
        let said = stage.says_with(script, |one| push(one, "/linux/resources/devices", allow));
        assert_eq!(said, "opened");
    });
}

#[test]
fn the_cgroup_is_shown() {
    all(|stage| {
        let mount = json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] });
        let pids = if Path::new("/sys/fs/cgroup/pids").exists() { "pids/" } else { "" };
        // With a namespace of its own, and without: the container's own cgroup is at the root of what it sees.
        let script =
            format!("cat /sys/fs/cgroup/{pids}cgroup.procs; touch /sys/fs/cgroup/{pids}no 2> /dev/null || echo ro");
        for own in [true, false] {
            let said = stage.says_with(&script, |one| {
                push(one, "/mounts", mount.clone());
                if own {
                    push(one, "/linux/namespaces", json!({ "type": "cgroup" }));
                }
            });
            assert!(said.starts_with("1\n") && said.ends_with("ro"), "{own}: {said}");
        }
        stage.nothing_is_left();
    });
}

#[test]
fn mounts_spread_as_it_is_said() {
    all(|stage| {
        let (_, mount) = bind(stage, &["rbind", "rprivate"]);
        let script = "grep -E ' / | /bound ' /proc/self/mountinfo | grep -c -e shared -e master";
        stage.write_with(&["/bin/sh", "-c", script], |one| {
            push(one, "/mounts", mount);
            set(one, "/linux/rootfsPropagation", json!("private"));
        });
        assert_eq!(stage.run().out(), "0\n");
        stage.write_with(&["/bin/true"], |one| set(one, "/linux/rootfsPropagation", json!("sideways")));
        stage.run().fails();
    });
}

#[test]
fn files_are_shown_with_other_ids() {
    alone("crun 1.8.1 has another syntax for it, runc has it since 1.2", |stage: &Stage| {
        let (_, mut mount) = bind(stage, &["rbind", "idmap"]);
        mount["uidMappings"] = json!([{ "containerID": 0, "hostID": 4000, "size": 10 }]);
        mount["gidMappings"] = json!([{ "containerID": 0, "hostID": 5000, "size": 10 }]);
        let said = stage.says_with("stat -c '%u:%g' /bound /bound/file", |one| push(one, "/mounts", mount));
        assert_eq!(said, "4000:5000\n4000:5000");
        let (_, mount) = bind(stage, &["rbind", "idmap"]);
        stage.write_with(&["/bin/true"], |one| push(one, "/mounts", mount));
        let said = stage.run().fails();
        assert!(said.error().contains("mounts[4].options"), "{}", said.error());
    });
}

#[test]
fn without_pivot_root_the_host_is_out_of_reach_too() {
    all(|stage| {
        stage.write(&stage.configuration(&["/bin/sh", "-c", "ls /; ls /../..; test -e /host-file || echo gone"]));
        let said = stage.call(&["run", "--no-pivot", &stage.id("c")]).ok().out();
        assert!(said.contains("work\n") && said.ends_with("gone\n") && !said.contains("boot"), "{said}");
        stage.nothing_is_left();
    });
}
