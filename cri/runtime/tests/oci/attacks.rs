//! Images and containers that mean ill: the rows of the checklist that are this program's own. The others are the
//! executor's and tested there.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::check::{alone, berth};
use crate::stage::{Stage, push, set};

const REASON: &str = "it is about this program's own file";

/// The entry point is whatever the process is at that moment: the runtime (CVE-2019-5736). The file that it runs from
/// then can't be written to, whoever holds it.
#[test]
fn the_program_itself_is_out_of_reach() {
    alone(REASON, |stage: &Stage| {
        let before = fs::read(berth().program).expect("the program");
        fs::write(stage.rootfs().join("work/entry"), "#!/proc/self/exe\n").expect("a script");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(stage.rootfs().join("work/entry"), mode).expect("permissions");
        for entry in ["/proc/self/exe", "/work/entry"] {
            stage.write(&stage.configuration(&[entry]));
            stage.run();
        }
        let id = stage.id("c");
        stage.running(&id);
        stage.call(&["exec", &id, "/work/entry"]);
        stage.call(&["exec", &id, "/proc/self/exe", "state", "x"]);
        assert!(fs::read(berth().program).expect("the program") == before);
        assert!(stage.call(&["state", &id]).ok().out().contains("running"));
    });
}

/// Somebody inside, with the capabilities for it, takes hold of what joins, keeps it, and writes once nobody runs it any
/// more. The program is a copy of this test's own, which nobody else runs meanwhile.
#[test]
fn nobody_inside_gets_hold_of_a_writable_program() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("berth-oci");
    // By another process: a fork of a parallel test would hold this one's descriptor, and nothing can be executed then.
    let copied = Command::new("cp").arg(berth().program).arg(&program).status();
    assert!(copied.expect("cp").success());
    let before = fs::read(&program).expect("the program");
    let stage = &Stage::new(crate::check::Runtime { program: program.clone(), ..berth() });
    let id = stage.id("c");
    let all =
        ["CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "SYS_PTRACE", "KILL", "FOWNER"].map(|name| format!("CAP_{name}"));
    let script = "while :; do for one in /proc/[0-9]*/exe; do case $(readlink $one) in *busybox*|'') continue;; esac; \
                  exec 3<$one || continue; echo seen $(readlink $one); sleep 0.3; \
                  (echo overwritten >> /proc/self/fd/3) && echo WRITTEN; done; done 2> /dev/null";
    stage.write_with(&["/bin/sh", "-c", script], |one| {
        for set_name in ["bounding", "effective", "permitted"] {
            set(one, &format!("/process/capabilities/{set_name}"), json!(all));
        }
    });
    let made = stage.call(&["create", &id]).ok();
    stage.call(&["start", &id]).ok();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while std::time::Instant::now() < end {
        stage.call(&["exec", &id, "true"]).ok();
        if made.out().matches("seen").count() > 2 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // Long enough for the last one to be written to.
    std::thread::sleep(std::time::Duration::from_millis(600));
    let said = made.out();
    assert!(said.contains("seen"), "nothing came by, so nothing was shown");
    assert!(!said.contains("WRITTEN"), "{said}");
    assert!(fs::read(&program).expect("the program") == before);
}

#[test]
fn no_descriptor_of_the_hosts_comes_along() {
    alone("a row of the checklist (CVE-2024-21626)", |stage: &Stage| {
        for number in 3..20 {
            stage.write_with(&["/bin/pwd"], |one| set(one, "/process/cwd", json!(format!("/proc/self/fd/{number}"))));
            let said = stage.run();
            assert!(said.code != 0 || said.out().starts_with("/proc/"), "{number}: {}", said.out());
        }
        let id = stage.id("c");
        stage.running(&id);
        for number in 3..20 {
            let said = stage.call(&["exec", "--cwd", &format!("/proc/self/fd/{number}"), &id, "ls", "-d", "boot"]);
            said.fails();
        }
        assert_eq!(stage.call(&["exec", &id, "ls", "/proc/1/fd"]).ok().out(), "0\n1\n2\n");
    });
}

/// An image whose folders for mounts lead out.
#[test]
fn links_of_an_image_lead_nowhere() {
    alone("rows of the checklist (CVE-2019-19921, CVE-2021-30465, CVE-2025-31133)", |stage: &Stage| {
        let outside = stage.path("outside");
        fs::create_dir(&outside).expect("a folder");
        let rootfs = stage.rootfs();
        symlink(&outside, rootfs.join("out")).expect("a link");
        symlink("../../../../../../../../../../../..", rootfs.join("up")).expect("a link");
        let mount = json!({ "destination": "/out/made", "type": "tmpfs", "source": "x" });
        let made_above = stage.path("above-made");
        let above = json!({ "destination": format!("/up{}", made_above.display()), "type": "tmpfs", "source": "x" });
        stage.write_with(&["/bin/true"], |one| {
            push(one, "/mounts", mount);
            push(one, "/mounts", above);
            set(one, "/linux/devices", json!([{ "path": "/out/device", "type": "c", "major": 1, "minor": 3 }]));
        });
        stage.run();
        assert_eq!(fs::read_dir(&outside).expect("a folder").count(), 0, "something was made outside");
        assert!(!made_above.exists(), "something was made above the root");

        fs::remove_dir(rootfs.join("proc")).expect("removed");
        symlink("work", rootfs.join("proc")).expect("a link");
        stage.write(&stage.configuration(&["/bin/true"]));
        let said = stage.run().fails();
        assert!(said.error().contains("must be mounted on ordinary directory"), "{}", said.error());
        stage.nothing_is_left();
    });
}

/// An exec has the capabilities that it is given, and leaves none to what an unprivileged program executes.
#[test]
fn capabilities_of_an_exec_are_not_inheritable() {
    alone("a row of the checklist (CVE-2022-29162)", |stage: &Stage| {
        let id = stage.id("c");
        stage.running(&id);
        let masks = |more: &[&str]| {
            let command = ["/bin/sh", "-c", "grep -E 'Cap(Inh|Amb)' /proc/self/status"];
            stage.call(&[&["exec"], more, &[&id], &command].concat()).ok().out()
        };
        let none = "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n";
        assert_eq!(masks(&[]), none);
        // Without those of the configuration: a user gets nothing through a program, either.
        assert_eq!(masks(&["--user", "1000", "--cap", "CAP_KILL"]), none);
    });
}

/// A number is that user's, whatever the image's passwd calls so, and one past the range is nobody's.
#[test]
fn a_user_of_digits_is_a_number() {
    alone("a row of the checklist (CVE-2026-30892)", |stage: &Stage| {
        let passwd = "root:x:0:0::/root:/bin/sh\n1:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n";
        fs::write(stage.rootfs().join("etc/passwd"), passwd).expect("users");
        let id = stage.id("c");
        stage.running(&id);
        let said = stage.call(&["exec", "--user", "1:2", &id, "sh", "-c", "id -u; id -g"]).ok();
        assert_eq!(said.out(), "1\n2\n");
        for user in ["4294967296", "4294967295", "-1", "root", "1:root", "1:4294967296"] {
            let said = stage.call(&["exec", "--user", user, &id, "true"]).fails();
            assert!(said.error().contains("--user"), "{user}: {}", said.error());
        }
        stage.write_with(&["/bin/true"], |one| set(one, "/process/user/uid", json!(4_294_967_296_u64)));
        assert!(stage.call(&["run", &stage.id("d")]).fails().error().contains("process.user.uid"));
    });
}

/// The terminal is mounted on no file that an image's link leads to.
#[test]
fn a_linked_console_is_refused() {
    alone("a row of the checklist (CVE-2025-52565)", |stage: &Stage| {
        let (rootfs, id) = (stage.rootfs(), stage.id("c"));
        fs::write(rootfs.join("work/target"), "as it was").expect("a file");
        let volume = stage.path("volume");
        fs::create_dir_all(volume.join("pts")).expect("a folder");
        symlink("/work/target", volume.join("console")).expect("a link");
        stage.write_with(&["/bin/true"], |one| {
            set(one, "/process/terminal", json!(true));
            let over = json!({ "destination": "/dev", "type": "bind", "source": volume, "options": ["bind"] });
            one["mounts"].as_array_mut().expect("mounts").insert(2, over);
        });
        let (socket, _receiver) = crate::streams::receiver(stage, "console.sock");
        let said = stage.call(&["create", "--console-socket", &socket, &id]).fails();
        assert!(said.error().contains("console"), "{}", said.error());
        assert_eq!(fs::read(rootfs.join("work/target")).expect("the file"), b"as it was");
        stage.nothing_is_left();
    });
}

#[test]
fn long_names_are_no_way_around_limits() {
    alone("a row of the checklist (CVE-2021-43784)", |stage: &Stage| {
        let long = format!("/{}", "x/".repeat(40_000));
        stage.write_with(&["/bin/true"], |one| {
            set(one, "/linux/namespaces/1", json!({ "type": "network", "path": long }))
        });
        assert!(stage.run().fails().error().contains("too long"), "not refused for its length");
        let many: Vec<_> = (0..500).map(|n| json!({ "containerID": n, "hostID": 100_000 + n, "size": 1 })).collect();
        stage.write_with(&["/bin/true"], |one| {
            push(one, "/linux/namespaces", json!({ "type": "user" }));
            set(one, "/linux/uidMappings", json!(many));
            set(one, "/linux/gidMappings", json!(many));
        });
        assert!(stage.run().fails().error().contains("linux.uidMappings"));
        stage.nothing_is_left();
    });
}

/// A file of a configuration that never ends.
#[test]
fn a_configuration_without_end_is_not_read() {
    alone("limits are their own", |stage: &Stage| {
        let path = stage.path("bundle/config.json");
        fs::write(&path, " ".repeat((16 << 20) + 1)).expect("a file");
        assert!(stage.run().fails().error().contains("larger than"));
        let mut child = Command::new(berth().program)
            .args([
                "--root".as_ref(),
                stage.root().as_os_str(),
                "update".as_ref(),
                "-r".as_ref(),
                "/dev/zero".as_ref(),
                "x".as_ref(),
            ])
            .stderr(Stdio::null())
            .spawn()
            .expect("the runtime");
        assert!(!child.wait().expect("wait").success());
    });
}
