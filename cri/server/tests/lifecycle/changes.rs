//! Changes of what runs, and what is told of it.

use berth_cri_proto::v1 as cri;
use berth_cri_proto::v1::runtime_service_server::RuntimeService;
use tonic::{Code, Request, Status};

use crate::bench::{Bench, Client, cgroup_file, hello, limited, pod, script};
use crate::cases::cases;

cases![
    limits_change_and_stay,
    pod_limits_change_and_stay,
    memory_kills_are_told_apart,
    events_carry_statuses,
    inspection_has_the_usual_keys,
    refusals_say_why,
];

fn bytes(limit: i64) -> cri::LinuxContainerResources {
    cri::LinuxContainerResources { memory_limit_in_bytes: limit, ..cri::LinuxContainerResources::default() }
}

fn memory_limit(cgroup: &str) -> i64 {
    cgroup_file(cgroup, "memory", ("memory.limit_in_bytes", "memory.max")).parse().expect("bytes")
}

async fn limits_of(client: &Client, container: &str) -> cri::LinuxContainerResources {
    let status = client.status(container).await.expect("a status");
    status.resources.expect("resources").linux.expect("linux")
}

async fn update_pod(
    client: &Client,
    sandbox: &str,
    resources: cri::LinuxContainerResources,
    overhead: cri::LinuxContainerResources,
) -> Result<(), Status> {
    let request = cri::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: sandbox.to_owned(),
        overhead: Some(overhead),
        resources: Some(resources),
    };
    client.service.update_pod_sandbox_resources(Request::new(request)).await.map(drop)
}

/// A container of 16 MiB.
async fn start(client: &Client, sandbox: &str, name: &str, text: &str) -> String {
    let config = limited(script(name, text), bytes(16 << 20));
    let container = client.create(sandbox, config).await.expect("created");
    client.start(&container).await.expect("started");
    container
}

async fn reopen(client: &Client, container: &str) -> Result<(), Status> {
    let request = cri::ReopenContainerLogRequest { container_id: container.to_owned() };
    client.service.reopen_container_log(Request::new(request)).await.map(drop)
}

async fn limits_change_and_stay(bench: Bench) {
    let client = bench.open().await;
    let sandbox = client.run(pod("limits")).await.expect("a sandbox");
    let first = cri::LinuxContainerResources {
        cpu_period: 50_000,
        cpu_quota: 10_000,
        cpu_shares: 512,
        oom_score_adj: 500,
        ..bytes(64 << 20)
    };
    let runs = client.create(&sandbox, limited(script("runs", "sleep 1000"), first)).await.expect("created");
    let waits =
        client.create(&sandbox, limited(script("waits", "sleep 1000"), bytes(32 << 20))).await.expect("created");
    client.start(&runs).await.expect("started");
    let cgroup = client.inspect(&runs).await["cgroupsPath"].as_str().expect("a cgroup").to_owned();

    // Up, down, and one field at a time.
    for limit in [128 << 20, 48 << 20] {
        client.update(&runs, bytes(limit)).await.expect("updated");
        assert_eq!((memory_limit(&cgroup), limits_of(&client, &runs).await.memory_limit_in_bytes), (limit, limit));
    }
    let quota = cri::LinuxContainerResources { cpu_quota: 20_000, ..cri::LinuxContainerResources::default() };
    client.update(&runs, quota).await.expect("updated");
    let cpu = |name| cgroup_file(&cgroup, "cpu", (name, "cpu.max"));
    let written = (cpu("cpu.cfs_quota_us"), cpu("cpu.cfs_period_us"));
    let expected = if written.0.contains(' ') { ("20000 50000", "20000 50000") } else { ("20000", "50000") };
    assert_eq!((written.0.as_str(), written.1.as_str()), expected, "the period stays");
    let cpus = cri::LinuxContainerResources { cpuset_cpus: "0".to_owned(), ..cri::LinuxContainerResources::default() };
    client.update(&runs, cpus).await.expect("updated");
    assert_eq!(cgroup_file(&cgroup, "cpuset", ("cpuset.cpus", "cpuset.cpus")), "0");

    // What is refused changes nothing, and says which field.
    let bad = cri::LinuxContainerResources { cpuset_cpus: "4000".to_owned(), ..bytes(80 << 20) };
    let error = client.update(&runs, bad).await.expect_err("no such CPU");
    assert!(error.message().contains("linux.cpuset_cpus") && error.code() == Code::InvalidArgument, "{error}");
    assert_eq!((memory_limit(&cgroup), limits_of(&client, &runs).await.memory_limit_in_bytes), (48 << 20, 48 << 20));
    let bad = cri::LinuxContainerResources { memory_swap_limit_in_bytes: 1 << 20, ..Default::default() };
    let error = client.update(&runs, bad).await.expect_err("below the memory limit");
    assert!(error.message().contains("memory_swap_limit_in_bytes"), "{error}");
    let bad = cri::LinuxContainerResources { cpu_quota: 5, ..Default::default() };
    let error = client.update(&runs, bad).await.expect_err("no quota");
    assert!(error.message().contains("cpu_quota") && error.code() == Code::InvalidArgument, "{error}");

    client.update(&waits, bytes(40 << 20)).await.expect("updated before its start");
    let before = (limits_of(&client, &runs).await, limits_of(&client, &waits).await);
    assert_eq!((before.0.cpu_quota, before.0.cpu_period, before.0.oom_score_adj), (20_000, 50_000, 500));
    client.service.close().await;
    drop(client);

    let client = bench.open().await;
    assert_eq!((limits_of(&client, &runs).await, limits_of(&client, &waits).await), before);
    assert_eq!(client.inspect(&runs).await["runtimeSpec"]["linux"]["resources"]["memory"]["limit"], 48 << 20);
    client.start(&waits).await.expect("started");
    let cgroup = client.inspect(&waits).await["cgroupsPath"].as_str().expect("a cgroup").to_owned();
    assert_eq!(memory_limit(&cgroup), 40 << 20, "started with what was said before the restart");
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

async fn pod_limits_change_and_stay(bench: Bench) {
    let client = bench.open().await;
    let sandbox = client.run(pod("podlimits")).await.expect("a sandbox");
    let container = client.create(&sandbox, script("c", "sleep 1000")).await.expect("created");
    client.start(&container).await.expect("started");
    update_pod(&client, &sandbox, bytes(100 << 20), bytes(20 << 20)).await.expect("updated");
    let parent = client.inspect_pod(&sandbox).await["cgroupParent"].as_str().expect("a cgroup").to_owned();
    assert_eq!(memory_limit(&parent), 120 << 20);
    let error = update_pod(&client, &sandbox, bytes(-5), bytes(0)).await.expect_err("negative");
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    client.service.close().await;
    drop(client);
    let client = bench.open().await;
    let inspected = client.inspect_pod(&sandbox).await;
    assert_eq!(inspected["resources"]["memory_limit_in_bytes"], 100 << 20);
    assert_eq!(inspected["overhead"]["memory_limit_in_bytes"], 20 << 20);
    assert_eq!(client.run(pod("podlimits")).await.expect("the same sandbox"), sandbox);

    // A cgroup that was there before belongs to whoever made it.
    let host = berth_cgroup::Host::detect().expect("cgroups");
    let path = format!("{}/theirs", bench.config.cgroup_parent);
    let theirs = host.create(&path, &berth_cgroup::Resources::default()).expect("a cgroup");
    let mut config = pod("theirs");
    config.linux = Some(cri::LinuxPodSandboxConfig { cgroup_parent: path.clone(), ..Default::default() });
    let other = client.run(config).await.expect("a sandbox");
    let before = cgroup_file(&path, "memory", ("memory.limit_in_bytes", "memory.max"));
    update_pod(&client, &other, bytes(100 << 20), bytes(0)).await.expect("kept");
    assert_eq!(cgroup_file(&path, "memory", ("memory.limit_in_bytes", "memory.max")), before);
    assert_eq!(client.inspect_pod(&other).await["resources"]["memory_limit_in_bytes"], 100 << 20);
    client.remove_pod(&other).await.expect("removed");
    theirs.remove().expect("it was left to us");
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

async fn memory_kills_are_told_apart(bench: Bench) {
    const HUNGRY: &str = "head -c 200m /dev/zero | tail -c 200m > /dev/null";
    // The first process itself grows.
    const GREEDY: &str = "mkfifo /pipe; head -c 200m /dev/zero > /pipe & exec tail -c 200m /pipe";
    let client = bench.open().await;
    let sandbox = client.run(pod("hungry")).await.expect("a sandbox");
    // A child dies of it, the container goes on and ends well.
    let survivor = start(&client, &sandbox, "survivor", &format!("{HUNGRY}; echo went on; sleep 0.2; exit 0")).await;
    let status = client.exited(&survivor).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
    assert!(client.log("survivor").contains("went on"));
    // Nobody dies of memory: SIGKILL alone is not it.
    let killed = start(&client, &sandbox, "killed", "kill -9 $$; sleep 5").await;
    client.stop(&killed, 0).await.expect("stopped");
    let status = client.exited(&killed).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
    let eaten = start(&client, &sandbox, "eaten", GREEDY).await;
    let status = client.exited(&eaten).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));

    // One that has too little to begin with is not started, and the cause is named.
    let starved = client.create(&sandbox, limited(script("starved", "true"), bytes(64 << 10))).await.expect("created");
    let error = client.start(&starved).await.expect_err("64 KiB are too little");
    assert!(error.message().contains("ran out of memory") && error.message().contains("65536"), "{error}");

    // The same while no runtime is there; and it is still so after another restart.
    let away = start(&client, &sandbox, "away", &format!("sleep 1; {GREEDY}")).await;
    client.service.close().await;
    drop(client);
    let exit = bench.path("state/sandboxes").join(&sandbox).join("exits").join(&away);
    while !exit.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    for _ in 0..2 {
        let client = bench.open().await;
        for container in [&away, &eaten] {
            let status = client.exited(container).await;
            assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"), "{status:?}");
        }
        assert_eq!(client.exited(&survivor).await.reason, "Completed");
        client.service.close().await;
    }
    let client = bench.open().await;
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

async fn events_carry_statuses(bench: Bench) {
    use cri::ContainerEventType as Kind;
    use futures_util::StreamExt;
    let client = bench.open().await;
    let stream = client.service.get_container_events(Request::new(cri::GetEventsRequest {})).await;
    let mut stream = stream.expect("a stream").into_inner();
    let sandbox = client.run(pod("events")).await.expect("a sandbox");
    let container = client.create(&sandbox, script("c", "exit 4")).await.expect("created");
    client.start(&container).await.expect("started");
    client.exited(&container).await;
    client.remove(&container).await.expect("removed");
    client.remove_pod(&sandbox).await.expect("removed");
    let mut events = Vec::new();
    // Its last event is the sandbox's end.
    while events.last().is_none_or(|last: &cri::ContainerEventResponse| {
        (last.container_id.as_str(), last.container_event_type()) != (sandbox.as_str(), Kind::ContainerDeletedEvent)
    }) {
        let event = tokio::time::timeout(std::time::Duration::from_secs(20), stream.next()).await.expect("an event");
        events.push(event.expect("an event").expect("not lost"));
    }
    for event in &events {
        assert!(event.created_at > 0);
        let status = event.pod_sandbox_status.as_ref().unwrap_or_else(|| panic!("no sandbox in {event:?}"));
        assert_eq!(
            (status.id.as_str(), status.metadata.as_ref().expect("a name").name.as_str()),
            (&*sandbox, "events")
        );
    }
    let of = |id: &str, kind: Kind| {
        let found = events.iter().find(|event| event.container_id == id && event.container_event_type() == kind);
        found.unwrap_or_else(|| panic!("no {kind:?} of {id}"))
    };
    for kind in [Kind::ContainerCreatedEvent, Kind::ContainerStartedEvent, Kind::ContainerStoppedEvent] {
        assert_eq!(of(&container, kind).containers_statuses[0].id, container);
    }
    let stopped = &of(&container, Kind::ContainerStoppedEvent).containers_statuses[0];
    assert_eq!((stopped.state(), stopped.exit_code), (cri::ContainerState::ContainerExited, 4));
    of(&container, Kind::ContainerDeletedEvent);
    let stopped = of(&sandbox, Kind::ContainerStoppedEvent).pod_sandbox_status.as_ref().expect("a sandbox");
    assert_eq!(stopped.state(), cri::PodSandboxState::SandboxNotready);
    bench.assert_clean();
}

async fn inspection_has_the_usual_keys(bench: Bench) {
    let client = bench.open().await;
    let sandbox = client.run(pod("inspected")).await.expect("a sandbox");
    let mut config = script("c", "sleep 1000");
    config.envs = vec![cri::KeyValue { key: "GREETING".to_owned(), value: "hi".into() }];
    let container = client.create(&sandbox, limited(config, bytes(64 << 20))).await.expect("created");
    client.start(&container).await.expect("started");
    let info = client.inspect(&container).await;
    let pid = info["pid"].as_i64().expect("a process");
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).expect("it runs");
    assert!(String::from_utf8_lossy(&line).contains("sleep"));
    assert_eq!((info["sandboxID"].as_str(), info["snapshotKey"].as_str()), (Some(&*sandbox), Some(&*container)));
    assert_eq!(info["config"]["metadata"]["name"], "c");
    assert_eq!(info["config"]["envs"][0]["key"], "GREETING");
    let spec = &info["runtimeSpec"];
    assert_eq!(spec["linux"]["resources"]["memory"]["limit"], 64 << 20);
    assert!(spec["process"]["env"].as_array().expect("env").iter().any(|pair| pair == "GREETING=hi"), "{spec}");
    let inode = |path: &str| std::fs::read_link(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let namespace = |spec: &serde_json::Value, kind: &str| {
        let all = spec["linux"]["namespaces"].as_array().expect("namespaces").clone();
        let found = all.into_iter().find(|one| one["type"] == kind).unwrap_or_else(|| panic!("no {kind}"));
        found["path"].as_str().unwrap_or_default().to_owned()
    };
    let network = namespace(spec, "network");
    assert_eq!(inode(&format!("/proc/{pid}/ns/net")), inode(&network), "{network}");

    let pod_info = client.inspect_pod(&sandbox).await;
    let shim = pod_info["pid"].as_i64().expect("a shim");
    assert_eq!(inode(&format!("/proc/{shim}/ns/net")), inode(&format!("/proc/{pid}/ns/net")));
    assert_eq!(pod_info["netNamespaceClosed"], false);
    assert_eq!(pod_info["config"]["metadata"]["name"], "inspected");
    let pinned = namespace(&pod_info["runtimeSpec"], "network");
    assert_eq!(pinned, bench.config.state.join("netns").join(&sandbox).to_string_lossy());
    assert_eq!(inode(&namespace(&pod_info["runtimeSpec"], "ipc")), inode(&format!("/proc/{pid}/ns/ipc")));

    let request = cri::ContainerStatusRequest { container_id: container.clone(), verbose: false };
    let plain = client.service.container_status(Request::new(request)).await.expect("a status").into_inner();
    assert!(plain.info.is_empty(), "only where it is asked for");
    client.stop_pod(&sandbox).await.expect("stopped");
    assert_eq!(client.inspect(&container).await["pid"], 0);
    assert_eq!(client.inspect_pod(&sandbox).await["netNamespaceClosed"], true);
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

async fn refusals_say_why(bench: Bench) {
    let client = bench.open().await;
    let nobody = "0".repeat(64);
    assert_eq!(reopen(&client, &nobody).await.expect_err("nobody").code(), Code::NotFound);
    assert_eq!(client.update(&nobody, bytes(1 << 20)).await.expect_err("nobody").code(), Code::NotFound);
    let request = cri::PodSandboxStatsRequest { pod_sandbox_id: nobody.clone() };
    assert_eq!(
        client.service.pod_sandbox_stats(Request::new(request)).await.expect_err("nobody").code(),
        Code::NotFound
    );

    let sandbox = client.run(pod("refused")).await.expect("a sandbox");
    let logged = client.create(&sandbox, script("logged", "sleep 1000")).await.expect("created");
    assert_eq!(reopen(&client, &logged).await.expect_err("not running").code(), Code::FailedPrecondition);
    client.start(&logged).await.expect("started");
    let mut quiet = script("quiet", "sleep 1000");
    quiet.log_path = String::new();
    let quiet = client.create(&sandbox, quiet).await.expect("created");
    client.start(&quiet).await.expect("started");
    reopen(&client, &quiet).await.expect("nothing to open");
    // A log that can't be opened: its folder is gone. What was open goes on.
    std::fs::rename(&client.logs, bench.path("elsewhere")).expect("moved");
    let error = reopen(&client, &logged).await.expect_err("no folder");
    assert!(error.message().contains("logged.log"), "{error}");
    std::fs::rename(bench.path("elsewhere"), &client.logs).expect("moved back");
    std::fs::rename(client.logs.join("logged.log"), client.logs.join("logged.log.1")).expect("rotated");
    reopen(&client, &logged).await.expect("reopened");
    assert!(client.logs.join("logged.log").exists(), "it is there when the call returns");
    let request = cri::CheckpointPodRequest::default();
    let error = client.service.checkpoint_pod(Request::new(request)).await.expect_err("refused");
    assert!(error.code() == Code::Unimplemented && error.message().contains("checkpoint_pod"), "{error}");
    let early = client.create(&sandbox, hello("early")).await.expect("created");
    client.remove(&early).await.expect("removed");
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}
