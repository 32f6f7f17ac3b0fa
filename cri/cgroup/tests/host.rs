//! Against the machine's own cgroups, as root, below `/berth-test-cgroup-PID`.

use std::process::{Child, Command, Stdio};

use berth_cgroup::{Cgroup, DeviceRule, Devices, Host, Resources};
use berth_cri_core::device_filter;

/// Removes the test's cgroup whatever happens.
struct Guard {
    top: Cgroup,
    host: Host,
}

impl Guard {
    fn new(name: &str) -> Self {
        let host = Host::detect().expect("cgroups");
        let top = host.open(&format!("/berth-test-cgroup-{}-{name}", std::process::id())).expect("a path");
        Self { top, host }
    }

    fn path(&self, below: &str) -> String {
        format!("{}{below}", self.top.path())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.top.kill().expect("kill");
        self.top.remove().expect("remove");
    }
}

fn sleeper() -> Child {
    Command::new("sleep").arg("1000").spawn().expect("sleep")
}

fn pid(child: &Child) -> i32 {
    i32::try_from(child.id()).expect("a pid")
}

fn attach(child: &Child, cgroup: &Cgroup) {
    let entrances = cgroup.entrances();
    for file in entrances.tasks.into_iter().chain(entrances.v2.map(|folder| folder.join("cgroup.procs"))) {
        std::fs::write(&file, child.id().to_string()).expect("attach");
    }
}

#[test]
fn limits_can_be_set_raised_and_lowered() {
    let guard = Guard::new("limits");
    let mut resources = Resources {
        cpu_shares: Some(512),
        cpu_quota: Some(20_000),
        cpu_period: Some(100_000),
        memory_limit: Some(64 << 20),
        memory_swap: Some(64 << 20),
        pids_limit: Some(30),
        cpuset_cpus: "0".to_owned(),
        hugepage_limits: vec![("2MB".to_owned(), 0)],
        ..Resources::default()
    };
    let cgroup = guard.host.create(&guard.path("/pod/one"), &resources).expect("create");
    for bytes in [128 << 20, 32 << 20, -1] {
        resources.memory_limit = Some(bytes);
        resources.memory_swap = Some(bytes);
        cgroup.apply(&resources).unwrap_or_else(|error| panic!("{bytes}: {error}"));
    }
    resources.cpu_quota = Some(-1);
    resources.pids_limit = Some(-1);
    cgroup.apply(&resources).expect("no limits");
    let null = DeviceRule { block: false, major: Some(1), minor: Some(3), access: "rwm".to_owned() };
    let nodes = DeviceRule { block: true, major: None, minor: None, access: "m".to_owned() };
    cgroup.limit_devices(&Devices::Listed(vec![null, nodes])).expect("device rules");
    assert!(guard.host.missing(&guard.path("/pod/one")).expect("missing").is_empty());
    assert_eq!(
        guard.host.missing(&guard.path("/pod/x/y")).expect("missing"),
        [guard.path("/pod/x"), guard.path("/pod/x/y")]
    );
}

#[test]
fn everything_below_is_killed_and_removed() {
    let guard = Guard::new("kill");
    let pod = guard.host.create(&guard.path("/pod"), &Resources::default()).expect("create");
    let one = guard.host.create(&guard.path("/pod/one"), &Resources::default()).expect("create");
    let mut children = [sleeper(), sleeper()];
    for child in &children {
        attach(child, &one);
    }
    let mut pids: Vec<i32> = children.iter().map(pid).collect();
    pids.sort_unstable();
    assert_eq!(pod.procs(), pids);
    assert_eq!(one.oom_kills().expect("oom"), 0);
    assert!(one.cpu().expect("cpu").is_some() && one.memory().expect("memory").is_some());
    pod.kill().expect("kill");
    for child in &mut children {
        assert!(!child.wait().expect("wait").success());
    }
    pod.remove().expect("remove");
    assert!(!pod.exists() && !one.exists());
    pod.remove().expect("removing again is fine");
    pod.kill().expect("killing what is gone is fine");
}

#[test]
fn a_frozen_child_cgroup_dies_too() {
    let guard = Guard::new("frozen");
    let inner = guard.host.create(&guard.path("/pod/inner"), &Resources::default()).expect("create");
    let mut child = sleeper();
    attach(&child, &inner);
    for file in ["/sys/fs/cgroup/freezer", "/sys/fs/cgroup"] {
        let folder = format!("{file}{}", inner.path());
        let _ = std::fs::write(format!("{folder}/freezer.state"), "FROZEN");
        let _ = std::fs::write(format!("{folder}/cgroup.freeze"), "1");
    }
    guard.top.kill().expect("kill");
    assert!(!child.wait().expect("wait").success());
}

#[test]
fn an_out_of_memory_kill_is_counted() {
    let guard = Guard::new("oom");
    let resources = Resources { memory_limit: Some(8 << 20), memory_swap: Some(8 << 20), ..Resources::default() };
    let cgroup = guard.host.create(&guard.path("/one"), &resources).expect("create");
    // It moves itself in before it grows. One descriptor per hierarchy, as the shim does it.
    let handles = cgroup.handles().expect("handles");
    assert_eq!(handles.tasks.len(), guard.host.hierarchies().len());
    let script = "read go; head -c 100m /dev/zero | tail -c 100m >/dev/null";
    let mut child = Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).spawn().expect("sh");
    attach(&child, &cgroup);
    drop(child.stdin.take());
    child.wait().expect("wait");
    assert!(cgroup.oom_kills().expect("oom") >= 1);
}

#[test]
fn usage_is_what_the_process_used() {
    let guard = Guard::new("usage");
    let resources = Resources {
        memory_limit: Some(256 << 20),
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        pids_limit: Some(20),
        ..Resources::default()
    };
    let cgroup = guard.host.create(&guard.path("/one"), &resources).expect("create");
    // It grows by 40 MiB in its own memory and burns CPU, then waits.
    let script = "read go; x=$(head -c 40m /dev/zero | tr '\\0' x); i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; \
                  echo done; read end";
    let mut child =
        Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sh");
    attach(&child, &cgroup);
    let mut input = child.stdin.take().expect("stdin");
    std::io::Write::write_all(&mut input, b"go\n").expect("go");
    let mut line = String::new();
    let output = child.stdout.take().expect("stdout");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).expect("a line");
    assert_eq!(line, "done\n");

    let cpu = cgroup.cpu().expect("cpu").expect("counted");
    // The shell's own count, in ticks of 10 ms: fields 14 and 15, and its children's 16 and 17.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("stat");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    let ticks: u64 = fields[11..15].iter().map(|field| field.parse::<u64>().expect("ticks")).sum();
    let expected = ticks * 10_000_000;
    assert!(cpu.usage_ns.abs_diff(expected) < expected / 20 + 40_000_000, "{cpu:?} against {expected}");
    let both = cpu.user_ns.expect("user") + cpu.system_ns.expect("system");
    // v1 splits by ticks, of which interrupts and a hypervisor take some.
    assert!(both > cpu.usage_ns / 2 && both < cpu.usage_ns + cpu.usage_ns / 10 + 20_000_000, "{cpu:?}");
    assert!(cpu.periods.is_some_and(|periods| periods > 0), "{cpu:?}");

    let memory = cgroup.memory().expect("memory").expect("counted");
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("status");
    let field = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    let anonymous: u64 = field.trim().trim_end_matches(" kB").parse::<u64>().expect("kB") << 10;
    let rss = memory.rss.expect("rss");
    assert!(anonymous >= 40 << 20 && rss.abs_diff(anonymous) < anonymous / 20 + (1 << 20), "{memory:?} {anonymous}");
    assert_eq!(memory.limit, Some(256 << 20));
    assert!(memory.working_set <= memory.usage && memory.working_set >= rss, "{memory:?}");
    assert!(memory.peak.is_none_or(|peak| peak >= memory.usage) && memory.faults.is_some_and(|f| f.all > 1000));
    let tasks = cgroup.tasks().expect("tasks");
    assert_eq!((tasks.now, tasks.limit), (1, Some(20)));
    // A machine with a v2 tree and pressure says it of each cgroup in it.
    if std::path::Path::new("/proc/pressure/cpu").exists() {
        let pressure = cgroup.pressure();
        assert!(pressure.cpu.is_some_and(|cpu| cpu.some.total_ns > 0), "it was throttled: {pressure:?}");
        assert!(pressure.memory.is_some() && pressure.io.is_some());
    }
    drop(input);
    child.wait().expect("wait");
    guard.top.kill().expect("kill");
    cgroup.remove().expect("remove");
    assert!(cgroup.cpu().is_err() && cgroup.memory().is_err(), "a cgroup that is gone is an error, no zero");
}

#[test]
fn a_program_decides_which_devices_open() {
    let guard = Guard::new("program");
    let cgroup = guard.host.create(&guard.path("/one"), &Resources::default()).expect("create");
    let rule = |minor, access: &str| device_filter::Rule {
        allow: true,
        kind: Some(berth_plan::container::DeviceKind::Character),
        major: Some(1),
        minor: Some(minor),
        access: access.to_owned(),
    };
    // null whole, zero for reading; not full.
    let program = device_filter::compile(&[rule(3, "r"), rule(3, "w"), rule(5, "r")]);
    assert!(cgroup.filter_devices(&program).expect("attached"), "there is a v2 tree");
    let script = "read go; for d in null zero full; do \
                  head -c 1 /dev/$d >&2 && echo r $d; (echo > /dev/$d) && echo w $d; (: <> /dev/$d) && echo rw $d; done";
    let mut child = Command::new("sh")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh");
    attach(&child, &cgroup);
    drop(child.stdin.take());
    let output = child.wait_with_output().expect("wait");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "r null\nw null\nrw null\nr zero\n");
    // A second one beside it allows no more.
    cgroup.filter_devices(&program).expect("attached again");
}
