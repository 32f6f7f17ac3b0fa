//! Statistics and metrics, against what the kernel says.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use berth_cri_proto::v1 as cri;
use berth_cri_proto::v1::image_service_server::ImageService;
use berth_cri_proto::v1::runtime_service_server::RuntimeService;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tonic::{Request, Status};

use crate::bench::{Bench, Client, cgroup_file, hello, limited, pod, script};
use crate::cases::cases;

cases![
    statistics_are_the_kernels,
    pods_have_statistics,
    every_metric_has_a_value,
    lists_come_in_parts,
    disks_are_measured,
];

/// Within a twentieth, and what a few pages or milliseconds make.
#[track_caller]
fn near(what: &str, found: u64, expected: u64, slack: u64) {
    assert!(found.abs_diff(expected) <= expected / 20 + slack, "{what}: {found}, the kernel says {expected}");
}

fn value(value: Option<cri::UInt64Value>) -> Option<u64> {
    value.map(|value| value.value)
}

async fn stats(client: &Client, container: &str) -> cri::ContainerStats {
    let request = cri::ContainerStatsRequest { container_id: container.to_owned() };
    client.service.container_stats(Request::new(request)).await.expect("stats").into_inner().stats.expect("stats")
}

async fn list(client: &Client, filter: cri::ContainerStatsFilter) -> Vec<String> {
    let request = cri::ListContainerStatsRequest { filter: Some(filter) };
    let stats = client.service.list_container_stats(Request::new(request)).await.expect("stats").into_inner().stats;
    stats.into_iter().filter_map(|stats| stats.attributes).map(|attributes| attributes.id).collect()
}

async fn pod_stats(client: &Client, id: &str) -> cri::PodSandboxStats {
    let request = cri::PodSandboxStatsRequest { pod_sandbox_id: id.to_owned() };
    client.service.pod_sandbox_stats(Request::new(request)).await.expect("stats").into_inner().stats.expect("stats")
}

async fn pod_list(client: &Client, filter: cri::PodSandboxStatsFilter) -> Vec<String> {
    let request = cri::ListPodSandboxStatsRequest { filter: Some(filter) };
    let stats = client.service.list_pod_sandbox_stats(Request::new(request)).await.expect("stats").into_inner().stats;
    stats.into_iter().filter_map(|stats| stats.attributes).map(|attributes| attributes.id).collect()
}

/// CPU nanoseconds of a cgroup.
fn cpu_ns(cgroup: &str) -> u64 {
    let text = cgroup_file(cgroup, "cpuacct", ("cpuacct.usage", "cpu.stat"));
    match text.strip_prefix("usage_usec ") {
        None => text.parse().expect("nanoseconds"),
        Some(rest) => rest.lines().next().and_then(|us| us.parse::<u64>().ok()).expect("microseconds") * 1000,
    }
}

fn memory(cgroup: &str) -> u64 {
    cgroup_file(cgroup, "memory", ("memory.usage_in_bytes", "memory.current")).parse().expect("bytes")
}

fn memory_stat(cgroup: &str, keys: (&str, &str)) -> u64 {
    let text = cgroup_file(cgroup, "memory", ("memory.stat", "memory.stat"));
    let number = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok());
    number(keys.0).or_else(|| number(keys.1)).unwrap_or_else(|| panic!("{keys:?} in {text}"))
}

async fn statistics_are_the_kernels(bench: Bench) {
    let client = bench.open().await;
    let sandbox = client.run(pod("figures")).await.expect("a sandbox");
    let work = "x=$(head -c 30m /dev/zero | tr '\\0' x); i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; \
                echo ready; while :; do sleep 1000; done";
    let limits = cri::LinuxContainerResources {
        memory_limit_in_bytes: 256 << 20,
        cpu_shares: 512,
        ..cri::LinuxContainerResources::default()
    };
    let mut config = limited(script("work", work), limits);
    config.labels = HashMap::from([("foo".to_owned(), "bar".to_owned())]);
    let container = client.create(&sandbox, config).await.expect("created");
    client.start(&container).await.expect("started");
    client.said("work", "ready").await;

    let inspected = client.inspect(&container).await;
    let cgroup = inspected["cgroupsPath"].as_str().expect("a cgroup").to_owned();
    let pid = inspected["pid"].as_i64().expect("a process");
    let first = stats(&client, &container).await;
    let attributes = first.attributes.clone().expect("attributes");
    assert_eq!((attributes.id.as_str(), attributes.metadata.expect("a name").name.as_str()), (&*container, "work"));
    let cpu = first.cpu.expect("cpu");
    assert!(cpu.timestamp > 0 && cpu.usage_nano_cores.is_none(), "one sample is no rate: {cpu:?}");
    near("cpu", value(cpu.usage_core_nano_seconds).expect("cpu"), cpu_ns(&cgroup), 5_000_000);
    let used = first.memory.expect("memory");
    assert!(used.timestamp > 0);
    near("memory", value(used.usage_bytes).expect("usage"), memory(&cgroup), 1 << 20);
    let inactive = memory_stat(&cgroup, ("total_inactive_file", "inactive_file"));
    near("working set", value(used.working_set_bytes).expect("set"), memory(&cgroup) - inactive, 1 << 20);
    assert_eq!(value(used.available_bytes).expect("free"), (256 << 20) - value(used.working_set_bytes).expect("set"));
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    let anonymous = line.trim().trim_end_matches(" kB").parse::<u64>().expect("kB") << 10;
    assert!(anonymous >= 30 << 20, "{anonymous}");
    near("rss", value(used.rss_bytes).expect("rss"), anonymous, 2 << 20);
    let faults = memory_stat(&cgroup, ("total_pgfault", "pgfault"));
    near("faults", value(used.page_faults).expect("faults"), faults, 0);
    let major = memory_stat(&cgroup, ("total_pgmajfault", "pgmajfault"));
    near("major faults", value(used.major_page_faults).expect("major faults"), major, 0);
    // A memory limit alone forbids swapping.
    if let Some(swap) = first.swap {
        assert_eq!((value(swap.swap_usage_bytes), value(swap.swap_available_bytes)), (Some(0), Some(0)));
    }
    let has_pressure = Path::new("/proc/pressure/io").exists()
        && std::fs::read_to_string("/proc/self/mountinfo").expect("mounts").contains(" - cgroup2 ");
    let psi = [cpu.psi, used.psi, first.io.and_then(|io| io.psi)];
    assert!(psi.iter().all(|psi| psi.is_some() == has_pressure), "{psi:?}");

    // Half a second of one CPU and more than a second in all.
    let busy = "end=$(($(date +%s%N)/1000000+1300)); while [ $(($(date +%s%N)/1000000)) -lt $end ]; do :; done";
    client.exec(&container, &["/bin/sh", "-c", busy], 20).await.expect("ran");
    let second = stats(&client, &container).await.cpu.expect("cpu");
    let rate = value(second.usage_nano_cores).expect("two samples");
    let used = value(second.usage_core_nano_seconds).expect("cpu") - value(cpu.usage_core_nano_seconds).expect("cpu");
    let passed = u64::try_from(second.timestamp - cpu.timestamp).expect("time goes on");
    near("cores", rate, u64::try_from(u128::from(used) * 1_000_000_000 / u128::from(passed)).expect("cores"), 0);
    // How much of a processor it got is the machine's affair.
    assert!(rate > 0, "{rate}");

    let filter = |id: &str, sandbox: &str, label: &str| cri::ContainerStatsFilter {
        id: id.to_owned(),
        pod_sandbox_id: sandbox.to_owned(),
        label_selector: if label.is_empty() {
            HashMap::new()
        } else {
            HashMap::from([("foo".to_owned(), label.to_owned())])
        },
    };
    let one = vec![container.clone()];
    assert_eq!(list(&client, filter("", "", "")).await, one);
    assert_eq!(list(&client, filter(&container[..12], &sandbox[..12], "bar")).await, one);
    assert_eq!(list(&client, filter(&"0".repeat(64), "", "")).await, Vec::<String>::new());
    assert_eq!(list(&client, filter("", &"0".repeat(64), "")).await, Vec::<String>::new());
    assert_eq!(list(&client, filter("", "", "baz")).await, Vec::<String>::new());

    client.stop(&container, 0).await.expect("stopped");
    let ended = stats(&client, &container).await;
    assert!(ended.cpu.is_none() && ended.memory.is_none() && ended.io.is_none(), "nobody measured: {ended:?}");
    assert!(ended.writable_layer.is_some());
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

async fn pods_have_statistics(bench: Bench) {
    let client = bench.open().await;
    let sandbox = client.run(pod("podfigures")).await.expect("a sandbox");
    let web = client.create(&sandbox, hello("hello")).await.expect("created");
    client.start(&web).await.expect("started");
    let other = client.create(&sandbox, script("other", "sleep 999 & echo on; wait")).await.expect("created");
    client.start(&other).await.expect("started");
    client.said("hello", "listening").await;
    client.said("other", "on").await;
    let ip = client.pod_status(&sandbox).await.expect("a status").network.expect("a network").ip;
    let mut stream = TcpStream::connect((ip.as_str(), 8080)).expect("the pod answers");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("asked");
    stream.read_to_string(&mut String::new()).expect("an answer");
    // Both ends are done with it.
    drop(stream);

    let found = pod_stats(&client, &sandbox[..16]).await;
    assert_eq!(found.attributes.expect("attributes").labels["app"], "podfigures");
    let linux = found.linux.expect("linux");
    let cgroup = client.inspect_pod(&sandbox).await["cgroupParent"].as_str().expect("a cgroup").to_owned();
    near("cpu", value(linux.cpu.expect("cpu").usage_core_nano_seconds).expect("cpu"), cpu_ns(&cgroup), 5_000_000);
    near("memory", value(linux.memory.expect("memory").usage_bytes).expect("usage"), memory(&cgroup), 1 << 20);
    // The workload, a shell and what it sleeps with.
    assert_eq!(value(linux.process.expect("processes").process_count), Some(3));
    let mut ids: Vec<String> = linux.containers.into_iter().map(|one| one.attributes.expect("attributes").id).collect();
    ids.sort();
    let mut both = vec![web.clone(), other.clone()];
    both.sort();
    assert_eq!(ids, both);
    let interface = linux.network.expect("a network").default_interface.expect("eth0");
    assert_eq!(interface.name, "eth0");
    let inside = client.exec(&other, &["/bin/sh", "-c", "cat /proc/net/dev"], 10).await.expect("ran");
    let inside = String::from_utf8_lossy(&inside.stdout).into_owned();
    let line = inside.lines().find_map(|line| line.trim().strip_prefix("eth0:")).expect("eth0");
    let numbers: Vec<u64> = line.split_whitespace().map(|number| number.parse().expect("a number")).collect();
    assert!(numbers[0] > 200 && numbers[8] > 200, "{line}");
    // A neighbour's discovery may come in between.
    near("received", value(interface.rx_bytes).expect("rx"), numbers[0], 400);
    near("sent", value(interface.tx_bytes).expect("tx"), numbers[8], 400);
    assert_eq!((value(interface.rx_errors), value(interface.tx_errors)), (Some(numbers[2]), Some(numbers[10])));

    let mut config = pod("node");
    config.linux = Some(cri::LinuxPodSandboxConfig {
        security_context: Some(cri::LinuxSandboxSecurityContext {
            namespace_options: Some(cri::NamespaceOption {
                network: cri::NamespaceMode::Node.into(),
                pid: cri::NamespaceMode::Container.into(),
                ..cri::NamespaceOption::default()
            }),
            ..cri::LinuxSandboxSecurityContext::default()
        }),
        ..cri::LinuxPodSandboxConfig::default()
    });
    let node = client.run(config).await.expect("a sandbox");
    assert!(
        pod_stats(&client, &node).await.linux.expect("linux").network.is_none(),
        "the node's network is not the pod's"
    );
    assert_eq!(pod_list(&client, cri::PodSandboxStatsFilter::default()).await.len(), 2);
    let label_selector = HashMap::from([("app".to_owned(), "podfigures".to_owned())]);
    assert_eq!(
        pod_list(&client, cri::PodSandboxStatsFilter { id: String::new(), label_selector }).await,
        std::slice::from_ref(&sandbox)
    );
    let by_id = cri::PodSandboxStatsFilter { id: node[..10].to_owned(), label_selector: HashMap::new() };
    assert_eq!(pod_list(&client, by_id).await, std::slice::from_ref(&node));
    client.stop_pod(&node).await.expect("stopped");
    assert_eq!(
        pod_list(&client, cri::PodSandboxStatsFilter::default()).await,
        std::slice::from_ref(&sandbox),
        "only what is ready"
    );
    for sandbox in [&sandbox, &node] {
        client.remove_pod(sandbox).await.expect("removed");
    }
    bench.assert_clean();
}

/// What critest checks of a container with limits.
async fn every_metric_has_a_value(bench: Bench) {
    /// These have none where the kernel or the disk has none.
    const MAY_LACK: [&str; 13] = [
        "container_hugetlb_max_usage_bytes",
        "container_hugetlb_usage_bytes",
        "container_pressure_cpu_stalled_seconds_total",
        "container_pressure_cpu_waiting_seconds_total",
        "container_pressure_io_stalled_seconds_total",
        "container_pressure_io_waiting_seconds_total",
        "container_pressure_memory_stalled_seconds_total",
        "container_pressure_memory_waiting_seconds_total",
        "container_blkio_device_usage_total",
        "container_fs_reads_bytes_total",
        "container_fs_reads_total",
        "container_fs_writes_bytes_total",
        "container_fs_writes_total",
    ];
    let client = bench.open().await;
    let sandbox = client.run(pod("metrics")).await.expect("a sandbox");
    let limits = cri::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 20_000,
        cpu_shares: 1024,
        memory_limit_in_bytes: 64 << 20,
        memory_swap_limit_in_bytes: 64 << 20,
        ..cri::LinuxContainerResources::default()
    };
    let container = client.create(&sandbox, limited(script("top", "exec sleep 1000"), limits)).await.expect("created");
    client.start(&container).await.expect("started");
    let files = "mkdir -p /data && for i in 1 2 3 4 5 6 7 8 9 10; do echo hi > /data/$i; done; sync /data/1";
    assert_eq!(client.exec(&container, &["/bin/sh", "-c", files], 20).await.expect("ran").exit_code, 0);

    let request = Request::new(cri::ListMetricDescriptorsRequest {});
    let descriptors = client.service.list_metric_descriptors(request).await.expect("a list").into_inner().descriptors;
    let keys: BTreeMap<String, Vec<String>> =
        descriptors.into_iter().map(|descriptor| (descriptor.name, descriptor.label_keys)).collect();
    assert_eq!(keys.len(), 56);
    let request = Request::new(cri::ListPodSandboxMetricsRequest {});
    let pods = client.service.list_pod_sandbox_metrics(request).await.expect("a list").into_inner().pod_metrics;
    assert_eq!(pods.len(), 1);
    assert_eq!(pods[0].pod_sandbox_id, sandbox);
    assert_eq!(pods[0].container_metrics[0].container_id, container);
    let all: Vec<&cri::Metric> = pods[0].metrics.iter().chain(&pods[0].container_metrics[0].metrics).collect();
    for metric in &all {
        let keys = keys.get(&metric.name).unwrap_or_else(|| panic!("{} is not described", metric.name));
        assert_eq!(metric.label_values.len(), keys.len(), "{metric:?}");
        let label = |key: &str| &metric.label_values[keys.iter().position(|k| k == key).expect("a label")];
        assert_eq!((label("pod").as_str(), label("namespace").as_str()), ("metrics", "test"));
    }
    let missing: Vec<&String> = keys
        .keys()
        .filter(|name| !MAY_LACK.contains(&name.as_str()) && all.iter().all(|metric| metric.name != **name))
        .collect();
    assert!(missing.is_empty(), "without a value: {missing:?}");

    let of = |name: &str| {
        let found = pods[0].container_metrics[0].metrics.iter().find(|metric| metric.name == name);
        found.and_then(|metric| metric.value).unwrap_or_else(|| panic!("{name} has no value")).value
    };
    assert_eq!(of("container_spec_cpu_quota"), 20_000);
    assert_eq!(of("container_spec_memory_swap_limit_bytes"), 64 << 20);
    assert_eq!(of("container_processes"), 1);
    assert_eq!(of("container_threads"), 1);
    let pid = client.inspect(&container).await["pid"].as_i64().expect("a process");
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").count();
    assert_eq!(of("container_file_descriptors"), u64::try_from(open).expect("few"));
    let started = client.status(&container).await.expect("a status").started_at;
    assert_eq!(of("container_start_time_seconds"), u64::try_from(started / 1_000_000_000).expect("after 1970"));
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

/// Everything that a stream of lists holds.
async fn all<M, T>(stream: BoxStream<'static, Result<M, Status>>, items: fn(M) -> Vec<T>) -> Vec<T> {
    let parts: Vec<M> = stream.map(|part| part.expect("a part")).collect().await;
    parts.into_iter().flat_map(items).collect()
}

async fn lists_come_in_parts(bench: Bench) {
    let client = bench.open().await;
    let service = &client.service;
    let mut ids = Vec::new();
    for name in ["one", "two", "three"] {
        let sandbox = client.run(pod(name)).await.expect("a sandbox");
        let container = client.create(&sandbox, script(name, "sleep 1000")).await.expect("created");
        client.start(&container).await.expect("started");
        ids.push((sandbox, container));
    }
    ids.sort();
    let (pods, mut containers): (Vec<String>, Vec<String>) = ids.into_iter().unzip();
    containers.sort();

    let stream = service.stream_pod_sandboxes(Request::new(cri::StreamPodSandboxesRequest::default())).await;
    let found = all(stream.expect("a stream").into_inner(), |part| part.pod_sandboxes).await;
    assert_eq!(found.into_iter().map(|pod| pod.id).collect::<Vec<_>>(), pods);
    let stream = service.stream_containers(Request::new(cri::StreamContainersRequest::default())).await;
    let found = all(stream.expect("a stream").into_inner(), |part| part.containers).await;
    let request = Request::new(cri::ListContainersRequest::default());
    assert_eq!(found, service.list_containers(request).await.expect("a list").into_inner().containers);
    let filter = Some(cri::ContainerFilter { id: "0".repeat(64), ..cri::ContainerFilter::default() });
    let stream = service.stream_containers(Request::new(cri::StreamContainersRequest { filter })).await;
    assert!(all(stream.expect("a stream").into_inner(), |part| part.containers).await.is_empty());
    let stream = service.stream_container_stats(Request::new(cri::StreamContainerStatsRequest::default())).await;
    let found = all(stream.expect("a stream").into_inner(), |part| part.container_stats).await;
    let found: Vec<String> = found.into_iter().filter_map(|stats| stats.attributes).map(|one| one.id).collect();
    assert_eq!(found, containers);
    let stream = service.stream_pod_sandbox_stats(Request::new(cri::StreamPodSandboxStatsRequest::default())).await;
    let found = all(stream.expect("a stream").into_inner(), |part| part.pod_sandbox_stats).await;
    let found: Vec<String> = found.into_iter().filter_map(|stats| stats.attributes).map(|one| one.id).collect();
    assert_eq!(found, pods);
    let stream = service.stream_pod_sandbox_metrics(Request::new(cri::StreamPodSandboxMetricsRequest {})).await;
    let found = all(stream.expect("a stream").into_inner(), |part| part.pod_sandbox_metrics).await;
    assert_eq!(found.into_iter().map(|metrics| metrics.pod_sandbox_id).collect::<Vec<_>>(), pods);
    let stream = service.stream_images(Request::new(cri::StreamImagesRequest::default())).await;
    let found = all(stream.expect("a stream").into_inner(), |part| part.images).await;
    let request = Request::new(cri::ListImagesRequest::default());
    assert_eq!(found, service.list_images(request).await.expect("a list").into_inner().images);
    for sandbox in &pods {
        client.remove_pod(sandbox).await.expect("removed");
    }
    bench.assert_clean();
}

async fn disks_are_measured(bench: Bench) {
    let client = bench.open().await;
    let sandbox = client.run(pod("disk")).await.expect("a sandbox");
    let write = "mkdir -p /data/a/b && head -c 3m /dev/urandom > /data/a/large && echo 1 > /data/a/b/small && \
                 ln /data/a/large /data/again && ln -s nowhere /data/link && echo written; while :; do sleep 1000; done";
    let container = client.create(&sandbox, script("writer", write)).await.expect("created");
    client.start(&container).await.expect("started");
    client.said("writer", "written").await;
    let upper = bench.path("root/containers").join(&container).join("upper");
    let count = |arguments: &[&str]| {
        let output = Command::new(arguments[0]).args(&arguments[1..]).arg(&upper).output().expect("a count");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let bytes: u64 = count(&["du", "-s", "--block-size=1"]).split('\t').next().expect("du").parse().expect("du");
    // The folder itself is the overlay's, not the container's.
    let inodes: u64 = count(&["du", "-s", "--inodes"]).split('\t').next().expect("du").parse::<u64>().expect("du") - 1;
    let layer = stats(&client, &container).await.writable_layer.expect("a layer");
    assert!(layer.timestamp > 0);
    near("bytes", value(layer.used_bytes).expect("bytes"), bytes, 4096);
    assert!(bytes > 3 << 20, "{bytes}");
    assert_eq!(value(layer.inodes_used), Some(inodes));

    let info = client.service.image_fs_info(Request::new(cri::ImageFsInfoRequest {})).await.expect("info").into_inner();
    let (images, containers) = (&info.image_filesystems[0], &info.container_filesystems[0]);
    assert_eq!((value(containers.used_bytes), value(containers.inodes_used)), (value(layer.used_bytes), Some(inodes)));
    assert!(images.timestamp > 0 && containers.timestamp > 0);
    let layers = Command::new("du").args(["-s", "--block-size=1"]).arg(bench.path("root/layers")).output().expect("du");
    let layers = String::from_utf8_lossy(&layers.stdout).split('\t').next().expect("du").parse().expect("du");
    near("images", value(images.used_bytes).expect("bytes"), layers, 64 << 10);

    // An ended container's layer is final.
    client.exec(&container, &["/bin/sh", "-c", "head -c 1m /dev/urandom > /data/more"], 10).await.expect("ran");
    client.stop(&container, 0).await.expect("stopped");
    let ended = stats(&client, &container).await.writable_layer.expect("a layer");
    near("bytes", value(ended.used_bytes).expect("bytes"), bytes + (1 << 20), 4096);
    assert_eq!(stats(&client, &container).await.writable_layer, Some(ended), "it is measured once");
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}
