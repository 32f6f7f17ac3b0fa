//! Against the machine's own cgroups, as root, below `/berth-test-cgroup-PID`.

use std::process::{Child, Command, Stdio};

use berth_cgroup::{Cgroup, DeviceRule, Devices, Host, Resources};

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
    one.cpu_usage_ns().expect("cpu");
    assert!(one.memory_working_set().is_ok());
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
