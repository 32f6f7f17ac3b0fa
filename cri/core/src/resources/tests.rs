use super::*;

fn limits() -> cri::LinuxContainerResources {
    cri::LinuxContainerResources::default()
}

#[test]
fn nothing_said_is_nothing_changed() {
    assert_eq!(from_cri(&limits()), Ok(Resources::default()));
}

#[test]
fn what_the_kubelet_says_arrives() {
    let given = cri::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 64 << 20,
        cpuset_cpus: "0-1,3".into(),
        cpuset_mems: "0".into(),
        hugepage_limits: vec![cri::HugepageLimit { page_size: "2MB".into(), limit: 4 << 20 }],
        unified: [("memory.high".to_owned(), "100".to_owned()), ("cpu.idle".to_owned(), "1".to_owned())].into(),
        ..limits()
    };
    assert_eq!(
        from_cri(&given),
        Ok(Resources {
            cpu_shares: Some(512),
            cpu_quota: Some(50_000),
            cpu_period: Some(100_000),
            cpuset_cpus: "0-1,3".into(),
            cpuset_mems: "0".into(),
            memory_limit: Some(64 << 20),
            // Without a word on swap a container does not swap.
            memory_swap: Some(64 << 20),
            pids_limit: None,
            hugepage_limits: vec![("2MB".into(), 4 << 20)],
            unified: vec![("cpu.idle".into(), "1".into()), ("memory.high".into(), "100".into())],
        })
    );
}

#[test]
fn limits_can_be_lifted() {
    let given = cri::LinuxContainerResources { cpu_quota: -1, memory_limit_in_bytes: -1, ..limits() };
    let lifted = from_cri(&given).expect("accepted");
    assert_eq!((lifted.cpu_quota, lifted.memory_limit, lifted.memory_swap), (Some(-1), Some(-1), Some(-1)));
    let given = cri::LinuxContainerResources { cpu_shares: 1, ..limits() };
    assert_eq!(from_cri(&given).expect("accepted").cpu_shares, Some(2));
}

#[test]
fn nonsense_is_refused_with_its_field() {
    let unified = |file: &str, value: &str| cri::LinuxContainerResources {
        unified: [(file.to_owned(), value.to_owned())].into(),
        ..limits()
    };
    let page = |size: &str| cri::LinuxContainerResources {
        hugepage_limits: vec![cri::HugepageLimit { page_size: size.into(), limit: 1 }],
        ..limits()
    };
    for (given, field) in [
        (cri::LinuxContainerResources { cpu_shares: -1, ..limits() }, "linux.resources.cpu_shares"),
        (cri::LinuxContainerResources { cpu_quota: 5, ..limits() }, "linux.resources.cpu_quota"),
        (cri::LinuxContainerResources { cpu_quota: -2, ..limits() }, "linux.resources.cpu_quota"),
        (cri::LinuxContainerResources { cpu_period: 10, ..limits() }, "linux.resources.cpu_period"),
        (
            cri::LinuxContainerResources { memory_limit_in_bytes: -2, ..limits() },
            "linux.resources.memory_limit_in_bytes",
        ),
        (
            cri::LinuxContainerResources { memory_limit_in_bytes: 10, memory_swap_limit_in_bytes: 9, ..limits() },
            "linux.resources.memory_swap_limit_in_bytes",
        ),
        (cri::LinuxContainerResources { cpuset_cpus: "0\n1".into(), ..limits() }, "linux.resources.cpuset_cpus"),
        (cri::LinuxContainerResources { cpuset_mems: "../0".into(), ..limits() }, "linux.resources.cpuset_mems"),
        (page("../../x2MB"), "linux.resources.hugepage_limits.page_size"),
        (page("MB"), "linux.resources.hugepage_limits.page_size"),
        (unified("../cgroup.procs", "1"), "linux.resources.unified[\"../cgroup.procs\"]"),
        (unified("cgroup.kill", "1"), "linux.resources.unified[\"cgroup.kill\"]"),
        (unified("memory", "1"), "linux.resources.unified[\"memory\"]"),
        (unified("memory.high", "1\0"), "linux.resources.unified[\"memory.high\"]"),
    ] {
        assert_eq!(from_cri(&given).map_err(|error| error.field), Err(field.to_owned()));
    }
}
