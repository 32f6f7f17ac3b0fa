//! What containers of a pod share, and a pod with a user namespace of its own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use berth_plan::container::{Container, IdRange, Mount, MountSource, PidFrom};
use berth_plan::message::{Event, Reply, Request, Stage};
use berth_sys::{mount, pidfd::PidFd};

use crate::execs::{plan as exec_plan, run as run_exec};
use crate::place::{Place, bind, children, name_of, sandbox, shown_until, until};

const IDS: IdRange = IdRange { host: 100_000, length: 65_536 };

fn shared() -> Place {
    let Request::Sandbox { join_network, new_network, new_ipc, new_uts, user, hostname, sysctls, .. } = sandbox()
    else {
        unreachable!("it is one")
    };
    Place::with(Request::Sandbox {
        join_network,
        new_network,
        new_ipc,
        new_uts,
        shared_pid: true,
        user,
        hostname,
        sysctls,
    })
}

/// A pod with a network of its own, all in its user namespace.
fn mapped(shared_pid: bool) -> Place {
    Place::with(Request::Sandbox {
        join_network: false,
        new_network: true,
        new_ipc: true,
        new_uts: true,
        shared_pid,
        user: Some(IDS),
        hostname: "pod-1".to_owned(),
        sysctls: vec![
            ("kernel.shm_rmid_forced".to_owned(), "1".to_owned()),
            ("fs.mqueue.msg_max".to_owned(), "100".to_owned()),
            ("net.ipv4.ip_default_ttl".to_owned(), "77".to_owned()),
        ],
    })
}

fn in_pod(mut plan: Container) -> Container {
    plan.namespaces.pid = false;
    plan.pid_from = PidFrom::Pod;
    plan
}

fn with_ids(mut plan: Container) -> Container {
    plan.user = Some(IDS);
    plan
}

fn init_of(place: &Place) -> i32 {
    let text = fs::read_to_string(place.folder.join("run/init.pid")).expect("init.pid");
    text.parse().expect("a number")
}

#[test]
fn containers_share_a_pid_namespace_whose_first_process_reaps() {
    let mut place = shared();
    let plan = in_pod(place.plan("first", "exec sleep 1000"));
    let first = place.start(&plan).expect("start");
    until(|| name_of(first) == "sleep");
    // The orphan's end is nobody's business but process 1's.
    let script = "cat /proc/1/comm; echo self $$; cat /proc/[0-9]*/comm | sort | grep -c sleep; (sh -c 'true & exec true'); \
                  sleep 0.2; grep -l 'State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l; \
                  ls /proc/1/root/ | wc -l; ls -l /proc/1/fd | grep -c -v -E 'total|/dev/null|pipe'; grep CapEff /proc/1/status";
    let mut plan = in_pod(place.plan("second", script));
    let ptrace = 1 << 19;
    plan.process.capabilities.bounding |= ptrace;
    plan.process.capabilities.permitted |= ptrace;
    plan.process.capabilities.effective |= ptrace;
    plan.process.args[0] = "/bin/bash".to_owned();
    let (_, log) = place.run(&plan);
    let lines: Vec<&str> = log.lines().filter_map(|line| line.strip_prefix("stdout F ")).collect();
    assert_eq!(lines.first(), Some(&"berth-init"), "{log}");
    assert_ne!(lines.get(1), Some(&"self 1"), "{log}");
    assert_eq!(lines[2..], ["1", "0", "0", "0", "CapEff:\t0000000000000000"], "{log}");
    // The next one without a share is alone again.
    let alone = place.plan("alone", "echo $$");
    assert_eq!(place.output(&alone), "1\n");
    let (_, text) = run_exec(&mut place, &exec_plan("e1", "first", "cat /proc/1/comm"));
    assert_eq!(text, "berth-init\n");
    place.signal("first", 9);
    place.exit_of("first");
    let init = PidFd::open(init_of(&place)).expect("process 1");
    assert_eq!(place.client.ask(Request::Shutdown, &[]).expect("leave"), Reply::Done);
    assert!(init.has_ended(0).expect("poll"), "it ends with the shim");
}

#[test]
fn process_one_and_the_shim_end_together() {
    let place = shared();
    let init = PidFd::open(init_of(&place)).expect("process 1");
    let shim = PidFd::open(place.shim).expect("the shim");
    shim.kill().expect("kill");
    assert!(init.has_ended(20_000).expect("poll"), "it ends with the shim");

    let mut place = shared();
    let plan = in_pod(place.plan("c1", "exec sleep 1000"));
    place.start(&plan).expect("start");
    let shim = PidFd::open(place.shim).expect("the shim");
    PidFd::open(init_of(&place)).and_then(|init| init.kill()).expect("kill");
    assert!(shim.has_ended(20_000).expect("poll"), "a sandbox in which nothing can start is none");
    assert!(place.folder.join("run/exits/c1").exists(), "how its container ended is known");
}

#[test]
fn a_container_joins_another_ones_processes() {
    let mut place = Place::new();
    let plan = place.plan("target", "exec sleep 1000");
    let target = place.start(&plan).expect("start");
    until(|| name_of(target) == "sleep");
    let join = |place: &Place, name: &str, target: &str| {
        let mut plan = place.plan(name, "cat /proc/1/comm; hostname");
        plan.namespaces.pid = false;
        plan.pid_from = PidFrom::Container(target.to_owned());
        plan
    };
    let plan = join(&place, "debug", "target");
    assert_eq!(place.output(&plan), "sleep\npod-1\n");
    let plan = join(&place, "lost", "nobody");
    assert_eq!(place.start(&plan).expect_err("no such container").stage, Stage::UnknownTarget);
    let plan = in_pod(place.plan("shared", "true"));
    assert_eq!(place.start(&plan).expect_err("nothing is shared").stage, Stage::Protocol);
    place.signal("target", 9);
    place.exit_of("target");
}

#[test]
fn a_pod_has_users_of_its_own() {
    let mut place = mapped(false);
    let volume = place.folder.join("volume");
    fs::create_dir(&volume).expect("volume");
    fs::write(volume.join("mine"), "").expect("file");
    let script = "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; stat -c '%n %u:%g' / /etc/passwd /data/mine /usr; id -u; echo $$; \
                  hostname; cat /proc/sys/kernel/shm_rmid_forced /proc/sys/fs/mqueue/msg_max /proc/sys/net/ipv4/ip_default_ttl; \
                  ls /sys/class/net; touch /new /data/new; chown 7:8 /new; chown 5:6 /data/new; echo x > /dev/null && echo null; \
                  mkdir /m && mount -t tmpfs none /m && touch /m/x && ls /m; \
                  echo again > /dev/stdout; wc -c < /proc/interrupts; touch /etc/passwd && echo copied";
    let mut plan = with_ids(place.plan("c1", script));
    plan.mounts.push(Mount { idmap: Some(IDS), ..bind(volume.to_str().expect("text"), "/data", 0) });
    plan.masked_paths.push("/proc/interrupts".to_owned());
    let all = (1 << 41) - 1;
    plan.process.capabilities.bounding = all;
    plan.process.capabilities.permitted = all;
    plan.process.capabilities.effective = all;
    let output = place.output(&plan);
    let expected = " 0 100000 65536\n 0 100000 65536\n/ 0:0\n/etc/passwd 0:0\n/data/mine 0:0\n/usr 65534:65534\n0\n1\npod-1\n1\n100\n77\nlo\n\
                    null\nx\nagain\n0\ncopied\n";
    assert_eq!(output, expected);
    // On disk: the container's own files have the ids of the node, those of a mapped volume the pod's.
    let owner = |path: &Path| fs::metadata(path).map(|data| (data.uid(), data.gid())).expect("a file");
    assert_eq!(owner(&place.folder.join("c1/upper/new")), (100_007, 100_008));
    assert_eq!(owner(&place.folder.join("c1/upper/etc/passwd")), (100_000, 100_000));
    assert_eq!(owner(&volume.join("new")), (5, 6));
    assert_eq!(owner(&place.folder.join("image/etc/passwd")), (0, 0));
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!mounts.contains(place.folder.to_str().expect("text")), "{mounts}");
    // Another user, and one that the pod does not have.
    let mut plan = with_ids(place.plan("c2", "id -u; id -G; echo again > /dev/stdout; touch /tmp/x"));
    (plan.process.uid, plan.process.gid, plan.process.groups) = (1000, 1001, vec![1001, 1002]);
    assert_eq!(place.output(&plan), "1000\n1001 1002\nagain\n");
    assert_eq!(owner(&place.folder.join("c2/upper/tmp/x")), (101_000, 101_001));
    let mut plan = with_ids(place.plan("c3", "true"));
    plan.process.uid = 70_000;
    let failure = place.start(&plan).expect_err("no such user");
    assert_eq!(failure.stage, Stage::User, "{}", failure.message);
    assert!(failure.message.contains("70000"), "{}", failure.message);
    // A failure inside is told like any other, and nothing is left of either process.
    let mut plan = with_ids(place.plan("c4", "true"));
    plan.process.args = vec!["/no/such".to_owned()];
    assert_eq!(place.start(&plan).expect_err("no such program").stage, Stage::Execve);
    until(|| children(place.shim).len() == 1);
    let (exit, _) = place.run(&with_ids(place.plan("c5", "exit 7")));
    assert_eq!(exit.code, 7);
    // A plan without ids is no container of this pod.
    let plan = place.plan("c6", "true");
    assert_eq!(place.start(&plan).expect_err("no ids").stage, Stage::Protocol);
}

#[test]
fn commands_run_inside_the_user_namespace() {
    let mut place = mapped(true);
    let plan = in_pod(with_ids(place.plan("c1", "touch /mark; exec sleep 1000")));
    let first = place.start(&plan).expect("start");
    until(|| name_of(first) == "sleep");
    assert_eq!(fs::metadata(format!("/proc/{first}")).expect("it runs").uid(), 100_000);
    until(|| name_of(init_of(&place)) == "berth-init");
    // On a terminal, which belongs to the user inside.
    let mut on_terminal = exec_plan("e0", "c1", "id -u; stat -c %u $(tty); echo x > $(tty)");
    on_terminal.user = Some(IDS);
    on_terminal.process.uid = 1000;
    on_terminal.process.terminal = true;
    let (_, mut master) = place.exec_on_terminal(&on_terminal).expect("an exec on a terminal");
    assert_eq!(shown_until(&mut master, "x\r\n"), "1000\r\n1000\r\nx\r\n");
    let Event::ExecExited { exit, .. } = place.client.event() else { panic!("an exec's end") };
    assert_eq!(exit.code, 0);
    let mut exec = exec_plan(
        "e1",
        "c1",
        "cat /proc/1/comm; id -u; tr -s ' ' < /proc/self/uid_map; ls /mark; echo x > /dev/stdout",
    );
    exec.user = Some(IDS);
    exec.process.uid = 1000;
    let (exit, text) = run_exec(&mut place, &exec);
    assert_eq!((exit.code, text.as_str()), (0, "berth-init\n1000\n 0 100000 65536\n/mark\nx\n"));
    place.signal("c1", 15);
    place.signal("c1", 9);
    place.exit_of("c1");
    let init = init_of(&place);
    assert_eq!(fs::metadata(format!("/proc/{init}/status")).expect("it runs").uid(), 0, "nobody may look into it");
    let status = fs::read_to_string(format!("/proc/{init}/status")).expect("status");
    assert!(status.contains("Uid:\t100000\t100000\t100000\t100000"), "{status}");
}

/// A container with CAP_SYS_PTRACE can make process 1 do what it likes, so that may be little.
#[test]
fn process_one_can_do_nothing_and_is_in_the_pod() {
    let place = shared();
    let init = init_of(&place);
    let status = || fs::read_to_string(format!("/proc/{init}/status")).expect("status");
    until(|| status().contains("Seccomp:\t1"));
    let status = status();
    for line in ["NoNewPrivs:\t1", "CapBnd:\t0000000000000000", "CapPrm:\t0000000000000000"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    let namespace = |pid: i32, name: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).expect("a namespace");
    for name in ["ipc", "uts"] {
        assert_eq!(namespace(init, name), namespace(place.shim, name), "{name}");
        assert_ne!(namespace(init, name), fs::read_link(format!("/proc/self/ns/{name}")).expect("ours"), "{name}");
    }
    let score = fs::read_to_string(format!("/proc/{init}/oom_score_adj")).expect("a score");
    assert!(score.trim().parse::<i32>().expect("a number") >= 0, "{score}");
}

/// A bind of the one layer could be remounted by whoever may mount in his user namespace, and written to.
#[test]
fn an_image_s_only_layer_can_t_be_made_writable() {
    let mut place = mapped(false);
    let layer = place.folder.join("layer");
    fs::create_dir(&layer).expect("layer");
    fs::write(layer.join("file"), "as it was").expect("file");
    let script = "mount -o remount,bind,rw /image; mount -o remount,rw /image; echo no > /image/file; echo no > /image/new; \
                  cat /image/file; echo";
    let mut plan = with_ids(place.plan("c1", script));
    let all = (1 << 41) - 1;
    plan.process.capabilities.bounding = all;
    plan.process.capabilities.permitted = all;
    plan.process.capabilities.effective = all;
    let layers = vec![layer.to_str().expect("text").to_owned()];
    plan.mounts.push(Mount {
        source: MountSource::Image { layers, sub_path: String::new() },
        recursive_attr: false,
        ..bind("", "/image", mount::RDONLY)
    });
    assert_eq!(place.output(&plan), "as it was\n");
    assert_eq!(fs::read_dir(&layer).expect("layer").count(), 1);
}

#[test]
fn images_are_mounted_as_volumes() {
    images(&mut Place::new(), |plan| plan);
    images(&mut mapped(false), with_ids);
}

fn images(place: &mut Place, adapt: fn(Container) -> Container) {
    let layer = |name: &str| {
        let path = place.folder.join("layers").join(name);
        fs::create_dir_all(path.join("share")).expect("layer");
        path
    };
    let (top, low) = (layer("top"), layer("low"));
    fs::write(top.join("share/both"), "top").expect("file");
    fs::write(low.join("share/both"), "low").expect("file");
    fs::write(low.join("share/deep"), "deep").expect("file");
    std::os::unix::fs::symlink("/share", low.join("link")).expect("link");
    std::os::unix::fs::symlink("/../../../etc", low.join("out")).expect("link");
    fs::write(top.join("run"), "#!/bin/sh\necho ran\n").expect("program");
    fs::set_permissions(top.join("run"), fs::Permissions::from_mode(0o755)).expect("mode");
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    let image = |layers: Vec<String>, sub_path: &str, destination: &str| Mount {
        source: MountSource::Image { layers, sub_path: sub_path.to_owned() },
        recursive_attr: false,
        ..bind("", destination, mount::RDONLY)
    };
    let both = || vec![text(&top), text(&low)];
    let script = "cat /whole/share/both /whole/share/deep /part/both /linked/deep /one/both /file; echo; /whole/run; \
                  touch /whole/x /part/x 2>&1 | grep -c Read-only; ls /part; stat -c %u /whole/run";
    let mut plan = place.plan("c1", script);
    plan.mounts.extend([
        image(both(), "", "/whole"),
        image(both(), "share", "/part"),
        image(both(), "link", "/linked"),
        image(vec![text(&top)], "share", "/one"),
        image(both(), "share/deep", "/file"),
    ]);
    let plan = adapt(plan);
    assert_eq!(place.output(&plan), "topdeeptopdeeptopdeep\nran\n2\nboth\ndeep\n0\n");
    for (name, missing) in [("c2", "no/such"), ("c3", "out")] {
        let mut plan = place.plan(name, "true");
        plan.mounts.push(image(both(), missing, "/x"));
        let failure = place.start(&adapt(plan)).expect_err(missing);
        assert_eq!(failure.stage, Stage::Mount);
        assert!(failure.message.contains(missing), "{}", failure.message);
    }
    let folders = both();
    berth_oci::images::check(&folders, "share/deep").expect("it is there");
    let failure = berth_oci::images::check(&folders, "out").expect_err("it is not");
    assert!(failure.message.contains("no such file"), "{}", failure.message);
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!mounts.contains(place.folder.to_str().expect("text")), "{mounts}");
}
