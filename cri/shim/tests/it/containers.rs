use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use berth_plan::codec;
use berth_plan::container::{Capabilities, MountSource, Rlimit, Rootfs, Stdin};
use berth_plan::message::{Exit, Held, Reply, Request, Stage};
use berth_sys::namespace::{self, Namespaces};
use berth_sys::{Mode, OFlags, fd, mount, netns, path};

use crate::cgroups::{Cgroups, is_pure_v2};
use crate::client::Client;
use crate::place::{DEFAULT_CAPABILITIES, Place, bind, process, until};

#[test]
fn a_container_runs_is_logged_and_leaves_a_record() {
    let mut place = Place::new();
    let plan = place.plan("c1", "echo out; echo err >&2; exit 7");
    let (exit, log) = place.run(&plan);
    assert_eq!((exit.code, exit.signal), (7, 0));
    assert!(exit.started_at > 0 && exit.finished_at >= exit.started_at);
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["stderr F err", "stdout F out"]);
    let record = fs::read(place.folder.join("run/exits/c1")).expect("record");
    assert_eq!(codec::decode::<Exit>(&record).expect("a record"), exit);
    assert_eq!(place.client.ask(Request::Forget { container: "c1".to_owned() }, &[]).expect("forget"), Reply::Done);
    assert!(!place.folder.join("run/exits/c1").exists());
    assert_eq!(fs::read_to_string(place.folder.join("run/shim.log")).expect("shim.log"), "");
}

#[test]
fn its_namespaces_are_its_own() {
    let mut place = Place::new();
    let script = "echo pid $$; hostname; cat /proc/self/cgroup | cut -d: -f3 | sort -u; ls /; cat /proc/1/comm";
    let plan = place.plan("c1", script);
    let output = place.output(&plan);
    assert!(output.starts_with("pid 1\npod-1\n/\n"), "{output}");
    assert!(output.ends_with("bin\ndev\netc\nhome\nlib\nlib64\nproc\nsbin\nsys\ntmp\nusr\nsh\n"), "{output}");
    // Nothing of it is to be seen on the host.
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!mounts.contains(place.folder.to_str().expect("text")), "{mounts}");
}

#[test]
fn only_the_standard_descriptors_are_open() {
    let mut place = Place::new();
    // The shell's own listing opens one more for the folder.
    let plan = place.plan("c1", "exec ls -l /proc/self/fd");
    let output = place.output(&plan);
    let open: Vec<&str> = output
        .lines()
        .filter_map(|line| line.split_once(" -> "))
        .map(|(name, _)| name.rsplit(' ').next().expect("a name"))
        .collect();
    assert_eq!(open, ["0", "1", "2", "3"], "{output}");
    assert!(output.contains("0 -> /dev/null") && output.contains("3 -> /proc/"), "{output}");
}

#[test]
fn capabilities_filter_and_privileges_are_the_plans() {
    let mut place = Place::new();
    let status = "grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid|Gid|Groups|Umask)' /proc/self/status";
    let mut plan = place.plan("root", status);
    // Allow everything: load nothing, return SECCOMP_RET_ALLOW.
    plan.process.seccomp = vec![6, 0, 0, 0, 0, 0, 0xff, 0x7f];
    plan.process.no_new_privileges = true;
    let output = place.output(&plan);
    let caps = format!("{DEFAULT_CAPABILITIES:016x}");
    for line in [
        "CapInh:\t0000000000000000",
        &format!("CapPrm:\t{caps}"),
        &format!("CapEff:\t{caps}"),
        &format!("CapBnd:\t{caps}"),
    ] {
        assert!(output.contains(line), "{line}: {output}");
    }
    assert!(
        output.contains("NoNewPrivs:\t1") && output.contains("Seccomp:\t2") && output.contains("Umask:\t0022"),
        "{output}"
    );

    let mut plan = place.plan("user", status);
    plan.process.seccomp = vec![6, 0, 0, 0, 0, 0, 0xff, 0x7f];
    (plan.process.uid, plan.process.gid, plan.process.groups) = (1000, 1001, vec![1002, 1003]);
    let output = place.output(&plan);
    assert!(
        output.contains("Uid:\t1000\t1000\t1000\t1000") && output.contains("Gid:\t1001\t1001\t1001\t1001"),
        "{output}"
    );
    assert!(output.contains("Groups:\t1002 1003") && output.contains("CapPrm:\t0000000000000000"), "{output}");
    assert!(output.contains("NoNewPrivs:\t0") && output.contains("Seccomp:\t2"), "{output}");

    let mut plan = place.plan("ambient", status);
    let bind_service = 1 << 10;
    plan.process.uid = 1000;
    plan.process.capabilities = Capabilities {
        bounding: u64::MAX,
        effective: bind_service,
        permitted: bind_service,
        inheritable: bind_service,
        ambient: bind_service,
    };
    let output = place.output(&plan);
    for set in ["Inh", "Prm", "Eff", "Amb"] {
        assert!(output.contains(&format!("Cap{set}:\t0000000000000400")), "{output}");
    }
}

#[test]
fn a_user_can_open_its_standard_streams_again() {
    let mut place = Place::new();
    let mut plan = place.plan("c1", "echo again > /dev/stdout; id -u");
    plan.process.uid = 1000;
    assert_eq!(place.output(&plan), "again\n1000\n");
}

#[test]
fn paths_are_masked_and_read_only() {
    let mut place = Place::new();
    let script = "wc -c < /proc/kcore; ls /sys/firmware | wc -l; touch /sys/firmware/x 2>&1; echo 1 2>&1 > /proc/sys/vm/drop_caches; \
                  echo 0 2>&1 > /proc/sys/kernel/hostname; true";
    let mut plan = place.plan("c1", script);
    plan.process.args = vec!["/bin/bash".to_owned(), "-c".to_owned(), script.to_owned()];
    let (_, log) = place.run(&plan);
    let count = log.matches("Read-only file system").count();
    assert_eq!(count, 3, "{log}");
    assert!(log.contains("stdout F 0\nstdout F 0\n") || log.contains("stdout F 0\n"), "{log}");
}

#[test]
fn a_read_only_root_keeps_volumes_writable() {
    let mut place = Place::new();
    let volume = place.folder.join("volume");
    fs::create_dir(&volume).expect("volume");
    let script = "touch /x; touch /data/y && ls /data; touch /ro/z; cat /etc/hosts";
    let mut plan = place.plan("c1", script);
    plan.readonly_rootfs = true;
    let text = volume.to_str().expect("text");
    fs::write(place.folder.join("hosts"), "127.0.0.1 localhost\n").expect("hosts");
    plan.mounts.push(bind(text, "/data", 0));
    plan.mounts.push(bind(text, "/ro", mount::RDONLY));
    plan.mounts.push(bind(place.folder.join("hosts").to_str().expect("text"), "/etc/hosts", 0));
    let (exit, log) = place.run(&plan);
    assert_eq!(exit.code, 0, "{log}");
    assert_eq!(log.matches("Read-only file system").count(), 2, "{log}");
    assert!(log.contains("stdout F y\n") && log.contains("stdout F 127.0.0.1 localhost\n"), "{log}");
    assert!(volume.join("y").exists());
}

#[test]
fn working_directory_umask_limits_and_score_are_set() {
    let mut place = Place::new();
    let mut plan = place.plan("c1", "pwd; umask; ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj; echo $GREETING");
    plan.process.cwd = "/made/for/me".to_owned();
    plan.process.umask = Some(0o027);
    plan.process.rlimits = vec![Rlimit { resource: 7, soft: 512, hard: 1024 }];
    plan.process.oom_score_adj = Some(937);
    plan.process.env.push("GREETING=hello".to_owned());
    assert_eq!(place.output(&plan), "/made/for/me\n0027\n512\n1024\n937\nhello\n");
    let mut plan = place.plan("c2", "cat /proc/self/oom_score_adj");
    plan.process.oom_score_adj = None;
    assert_eq!(place.output(&plan), "0\n");
}

#[test]
fn what_can_not_be_executed_is_said_in_known_words() {
    let mut place = Place::new();
    let mut fail = |args: &[&str], cwd: &str| {
        let mut plan = place.plan("c1", "");
        plan.process = process(args);
        cwd.clone_into(&mut plan.process.cwd);
        let failure = place.start(&plan).expect_err("no start");
        (failure.stage, failure.message)
    };
    let execve = |text: &str| (Stage::Execve, text.to_owned());
    assert_eq!(fail(&["foo"], "/"), execve("exec: \"foo\": executable file not found in $PATH"));
    assert_eq!(fail(&["/foo"], "/"), execve("exec: \"/foo\": stat /foo: no such file or directory"));
    assert_eq!(fail(&["/etc/passwd"], "/"), execve("exec: \"/etc/passwd\": permission denied"));
    assert_eq!(fail(&[], "/"), execve("no command was given"));
    assert_eq!(fail(&["/bin/true"], "/etc/passwd").0, Stage::Cwd);
    // A magic link, which an image's WORKDIR could lead out by (CVE-2024-21626).
    assert_eq!(fail(&["/bin/true"], "/proc/self/root/tmp").0, Stage::Cwd);
    // A failed start leaves nothing: the name is free, and no process is left.
    let plan = place.plan("c1", "true");
    assert_eq!(place.run(&plan).0.code, 0);
}

#[test]
fn a_limit_beyond_ours_is_an_error_that_names_it() {
    let mut place = Place::new();
    let mut plan = place.plan("c1", "ulimit -Hn");
    plan.process.rlimits = vec![Rlimit { resource: 7, soft: 1 << 40, hard: 1 << 40 }];
    let failure = place.start(&plan).expect_err("beyond fs.nr_open");
    assert_eq!((failure.stage, failure.errno), (Stage::Rlimit, 1));
    assert!(failure.message.contains("RLIMIT_NOFILE"), "{}", failure.message);
}

#[test]
fn signals_reach_the_first_process_and_a_killed_one_is_told() {
    let mut place = Place::new();
    let plan = place.plan("c1", "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.05; done");
    place.start(&plan).expect("start");
    until(|| place.log("c1").contains("ready"));
    place.signal("c1", 15);
    let exit = place.exit_of("c1");
    assert_eq!((exit.code, exit.signal), (3, 0));
    assert!(place.log("c1").contains("stdout F got it"));
    let plan = place.plan("c2", "sleep 1000");
    place.start(&plan).expect("start");
    place.signal("c2", 9);
    let exit = place.exit_of("c2");
    assert_eq!((exit.code, exit.signal), (137, 9));
}

#[test]
fn standard_input_is_null_or_stays_open() {
    let mut place = Place::new();
    let plan = place.plan("c1", "cat; echo end");
    assert_eq!(place.output(&plan), "end\n");
    let mut plan = place.plan("c2", "echo before; cat");
    plan.stdin = Stdin::Open;
    place.start(&plan).expect("start");
    until(|| place.log("c2").contains("before"));
    place.signal("c2", 9);
    assert_eq!(place.exit_of("c2").code, 137);
}

#[test]
fn long_paths_and_many_layers_make_an_overlay() {
    let mut place = Place::new();
    let mut plan = place.plan("c1", "cat /layer /top; test -e /l39");
    let deep = place.folder.join("d".repeat(200)).join("e".repeat(120));
    let mut lower = Vec::new();
    for n in 0..40 {
        let layer = deep.join(n.to_string());
        fs::create_dir_all(&layer).expect("layer");
        fs::write(layer.join("layer"), format!("{n}\n")).expect("file");
        fs::write(layer.join(format!("l{n}")), "").expect("file");
        lower.push(layer.to_str().expect("text").to_owned());
    }
    fs::write(deep.join("0/top"), "topmost\n").expect("file");
    let Rootfs::Overlay { lower: layers, .. } = &mut plan.rootfs else { panic!("an overlay") };
    layers.splice(0..0, lower);
    assert_eq!(place.output(&plan), "0\ntopmost\n");
}

#[test]
fn a_container_joins_the_cgroups_it_is_given() {
    let mut place = Place::new();
    let cgroups = Cgroups::make("joined", &["memory", "pids"]);
    let (hierarchies, links) = if is_pure_v2() {
        (vec![(String::new(), "cgroup2".to_owned(), vec![])], vec![])
    } else {
        let option = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let systemd = vec![option("none", ""), option("name", "systemd")];
        let hierarchies = vec![
            ("memory".to_owned(), "cgroup".to_owned(), vec![option("memory", "")]),
            ("systemd".to_owned(), "cgroup".to_owned(), systemd),
        ];
        (hierarchies, vec![option("mem", "memory")])
    };
    let mut plan = place.plan("c1", "exec sleep 1000");
    plan.mounts.push(berth_plan::container::Mount {
        source: MountSource::Cgroup { hierarchies, links },
        destination: "/sys/fs/cgroup".to_owned(),
        attr_set: mount::NOSUID | mount::NODEV | mount::NOEXEC | mount::RDONLY,
        attr_clear: 0,
        recursive_attr: false,
        propagation: 0,
        idmap: None,
    });
    let pid = place.start_in(&plan, &cgroups.tasks(), cgroups.folder().as_ref()).expect("start");
    for (procs, folder) in cgroups.procs().iter().zip(cgroups.folders()) {
        assert_eq!(procs.trim(), pid.to_string(), "{folder:?}");
    }
    // The cgroup namespace is rooted there: the container sees its own folder as the root of the file system.
    let inside = format!("/proc/{pid}/root/sys/fs/cgroup");
    let own = if is_pure_v2() { "" } else { "mem/" };
    let seen = fs::read_to_string(format!("{inside}/{own}cgroup.procs")).expect("inside");
    assert!(seen.contains(&pid.to_string()), "{seen}");
    if !is_pure_v2() {
        assert!(fs::metadata(format!("{inside}/systemd/cgroup.procs")).is_ok());
    }
    assert_eq!(fs::write(format!("{inside}/x"), "").expect_err("read-only").raw_os_error(), Some(30));
    place.signal("c1", 9);
    place.exit_of("c1");
}

#[test]
fn a_sandbox_joins_its_network_and_sets_sysctls_there() {
    let mut place = Place::without_sandbox();
    let path = place.folder.join("netns");
    netns::create(&path).expect("netns");
    let network: OwnedFd = fs::File::open(&path).expect("netns").into();
    let sysctl = |value: &str| vec![("net.ipv4.ip_default_ttl".to_owned(), value.to_owned())];
    let request = |sysctls| Request::Sandbox {
        join_network: true,
        new_network: false,
        new_ipc: true,
        new_uts: true,
        shared_pid: false,
        user: None,
        hostname: "pod-2".to_owned(),
        sysctls,
    };
    let failure = place.client.ask(request(sysctl("no number")), &[network.as_fd()]).expect_err("a bad value");
    assert_eq!(failure.stage, Stage::Sysctl);
    place.client.ask(request(sysctl("77")), &[network.as_fd()]).expect("sandbox");
    let again = place.client.ask(request(vec![]), &[network.as_fd()]).expect_err("made already");
    assert_eq!(again.stage, Stage::AlreadyExists);
    let mut plan = place
        .plan("c1", "cat /proc/sys/net/ipv4/ip_default_ttl; ls /sys/class/net; cat /proc/sys/kernel/shm_rmid_forced");
    plan.sysctls = vec![("kernel.shm_rmid_forced".to_owned(), "1".to_owned())];
    assert_eq!(place.output(&plan), "77\nlo\n1\n");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/shm_rmid_forced").expect("ours").trim(), "0");
    netns::remove(&path).expect("remove");
}

#[test]
fn a_runtime_that_comes_back_is_told_what_is_held() {
    let mut place = Place::new();
    let plan = place.plan("gone", "exit 4");
    let (exit, _) = place.run(&plan);
    let plan = place.plan("here", "sleep 1000");
    let pid = place.start(&plan).expect("start");
    let (second, hello) = Client::connect(&place.folder.join("run/shim.sock"));
    let Reply::Hello { sandbox_ready: true, containers, execs, .. } = hello else { panic!("{hello:?}") };
    assert!(execs.is_empty());
    assert!(containers.contains(&Held::Exited { container: "gone".to_owned(), exit }));
    assert!(
        matches!(containers.iter().find(|held| matches!(held, Held::Running { .. })), Some(Held::Running { pid: held, .. }) if *held == pid)
    );
    place.client = second;
    let failure = place.client.ask(Request::Shutdown, &[]).expect_err("one still runs");
    assert_eq!(failure.stage, Stage::Protocol);
    place.signal("here", 9);
    place.exit_of("here");
    assert_eq!(place.client.ask(Request::Shutdown, &[]).expect("shutdown"), Reply::Done);
    let shim = berth_sys::pidfd::PidFd::open(place.shim);
    assert!(shim.is_err() || shim.is_ok_and(|shim| shim.has_ended(-1).expect("poll")));
    assert!(!place.folder.join("run/shim.sock").exists());
}

#[test]
fn the_shims_file_can_not_be_written_through_it() {
    let mut place = Place::new();
    let plan = place.plan("c1", "sleep 1000");
    place.start(&plan).expect("start");
    let exe = format!("/proc/{}/exe", place.shim);
    // While the program runs, ETXTBSY hides it, but a handle taken now could be opened for writing later.
    let handle = fd::open(&exe, OFlags::PATH, Mode::empty()).expect("exe");
    assert!(path::is_readonly(handle.as_fd()).expect("statvfs"));
    assert_eq!(
        fs::metadata(&exe).expect("exe").ino(),
        fs::metadata(place.folder.join("berth-shim")).expect("file").ino()
    );
    place.signal("c1", 9);
    place.exit_of("c1");
}

#[test]
fn the_sample_workload_serves_and_leaves_on_sigterm() {
    let mut place = Place::new();
    // An image with one file.
    fs::write(place.folder.join("image/hello"), berth_carried::HELLO).expect("hello");
    fs::set_permissions(place.folder.join("image/hello"), PermissionsExt::from_mode(0o755)).expect("mode");
    let mut plan = place.plan("c1", "");
    plan.mounts.retain(|mount| mount.destination != "/usr");
    plan.process.args = vec!["/hello".to_owned()];
    plan.process.env = vec!["PORT=0".to_owned()];
    plan.process.uid = 65532;
    place.start(&plan).expect("start");
    let line = loop {
        match place.log("c1") {
            empty if empty.is_empty() => std::thread::yield_now(),
            line => break line,
        }
    };
    let port = line.trim().strip_prefix("stdout F hello from pod-1, listening on port ").expect(&line);
    let mut stream = TcpStream::connect(("127.0.0.1", port.parse::<u16>().expect("a port"))).expect("connect");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answer");
    assert!(
        answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("Hello from pod-1, a pod on Berth.\n"),
        "{answer}"
    );
    place.signal("c1", 15);
    let exit = place.exit_of("c1");
    assert_eq!((exit.code, exit.signal), (0, 0));
}

#[test]
fn mounts_travel_as_a_volume_is_asked_to() {
    // In a mount namespace of its own, which the shim inherits: the machine's mounts stay as they are.
    let worker = std::thread::spawn(|| {
        namespace::unshare(Namespaces::MOUNT).expect("unshare");
        mount::set_propagation_of("/", mount::PRIVATE | mount::RECURSIVE).expect("private");
        let mut place = Place::new();
        let volume = place.folder.join("volume");
        fs::create_dir(&volume).expect("volume");
        let tmpfs = |at: &Path| mount::mount_classic("none", at, "tmpfs", "").expect("tmpfs");
        tmpfs(&volume);
        mount::set_propagation_of(&volume, mount::SHARED).expect("shared");
        let mut expected = Vec::new();
        for (name, propagation) in [("private", 0), ("slave", mount::SLAVE), ("shared", mount::SHARED)] {
            let mut plan = place.plan(
                name,
                "until test -e /volume/later; do sleep 0.01; done; mount -t tmpfs none /volume/mine; \
                                             test -e /volume/host/mark && echo sees || echo blind",
            );
            plan.process.capabilities.bounding |= 1 << 21;
            plan.process.capabilities.permitted |= 1 << 21;
            plan.process.capabilities.effective |= 1 << 21;
            let mut bound = bind(volume.to_str().expect("text"), "/volume", 0);
            bound.propagation = propagation | if propagation == 0 { 0 } else { mount::RECURSIVE };
            plan.root_propagation = bound.propagation;
            plan.mounts.push(bound);
            for folder in ["mine", "host"] {
                fs::create_dir_all(volume.join(folder)).expect("folder");
            }
            place.start(&plan).expect("start");
            tmpfs(&volume.join("host"));
            fs::write(volume.join("host/mark"), "").expect("mark");
            fs::write(volume.join("later"), "").expect("later");
            assert_eq!(place.exit_of(name).code, 0);
            let mounted = fs::read_to_string("/proc/thread-self/mountinfo").expect("mounts").contains("volume/mine ");
            expected.push((place.log(name), mounted));
            fs::remove_file(volume.join("later")).expect("later");
            mount::unmount(volume.join("host"), false).expect("unmount");
            if mounted {
                mount::unmount(volume.join("mine"), false).expect("unmount");
            }
        }
        let line = |text: &str| format!("stdout F {text}\n");
        assert_eq!(expected, [(line("blind"), false), (line("sees"), false), (line("sees"), true)]);
        // The shim still sees the mount until it ends; the folder can be removed without it.
        mount::unmount(&volume, true).expect("unmount");
        drop(place);
    });
    worker.join().expect("the thread's checks hold");
}
