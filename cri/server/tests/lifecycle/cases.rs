//! What is shown.

use std::future::Future;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::pin::Pin;
use std::time::Duration;

use berth_cri::{OpenError, Service};
use berth_cri_proto::v1 as cri;
use tonic::Code;

use crate::bench::{Bench, hello, limited, pod, script};
use crate::pods::{a_pod_has_users_of_its_own, containers_share_processes, images_are_volumes};

pub(crate) type Case = fn(Bench) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// The cases of a module, by their names.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub(crate) const ALL: &[(&str, crate::cases::Case)] = &[$((stringify!($name), |bench| Box::pin($name(bench)))),*];
    };
}
pub(crate) use cases;

cases![
    a_pod_lives_and_leaves_nothing,
    commands_run_and_are_ended,
    ends_have_their_reasons,
    a_restart_adopts_what_runs,
    a_dead_shim_is_noticed,
    failures_unwind,
    calls_are_idempotent,
    a_second_runtime_is_refused,
    a_pod_has_users_of_its_own,
    containers_share_processes,
    images_are_volumes,
    every_crash_ends_clean,
];

async fn a_pod_lives_and_leaves_nothing(bench: Bench) {
    let client = bench.open().await;
    let mut events = client.service.events();
    let sandbox = client.run(pod("web")).await.expect("a sandbox");
    let status = client.pod_status(&sandbox).await.expect("a status");
    assert_eq!(status.state(), cri::PodSandboxState::SandboxReady);
    let ip = status.network.expect("a network").ip;
    assert!(ip.starts_with("10.211.0."), "{ip}");

    let container = client.create(&sandbox, hello("hello")).await.expect("created");
    assert_eq!(client.status(&container).await.expect("status").state(), cri::ContainerState::ContainerCreated);
    client.start(&container).await.expect("started");
    let status = client.status(&container).await.expect("status");
    assert_eq!(status.state(), cri::ContainerState::ContainerRunning);
    assert!(status.started_at > 0 && status.image_ref.starts_with("sha256:") && status.image_ref == status.image_id);

    // The line says that it listens.
    let ready = async {
        while !client.log("hello").contains("listening on port 8080") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ready).await.expect("a line in the log");
    assert!(client.log("hello").contains(" stdout F hello from web"), "{}", client.log("hello"));
    let mut stream = TcpStream::connect((ip.as_str(), 8080)).expect("the pod answers");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.0 200"), "{answer}");

    client.stop(&container, 20).await.expect("stopped");
    let status = client.status(&container).await.expect("status");
    assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
    assert!(client.log("hello").contains("goodbye"), "it got its stop signal");
    client.remove(&container).await.expect("removed");
    client.stop_pod(&sandbox).await.expect("stopped");
    let status = client.pod_status(&sandbox).await.expect("a status");
    assert_eq!(status.state(), cri::PodSandboxState::SandboxNotready);
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();

    let mut kinds = Vec::new();
    while let Ok(event) = events.try_recv() {
        kinds.push((event.container_id == sandbox, event.container_event_type));
    }
    let both = [(true, 0), (true, 1), (false, 0), (false, 1), (false, 2), (false, 3), (true, 2), (true, 3)];
    assert_eq!(kinds, both, "created, started, stopped, deleted: of the sandbox and of the container");
}

async fn commands_run_and_are_ended(bench: Bench) {
    let client = bench.open().await;
    let sandbox = client.run(pod("exec")).await.expect("a sandbox");
    let container = client.create(&sandbox, script("sleeper", "exec sleep 1000")).await.expect("created");
    let early = client.exec(&container, &["/bin/true"], 5).await.expect_err("not running yet");
    assert_eq!(early.code(), Code::FailedPrecondition);
    client.start(&container).await.expect("started");
    let out = client.exec(&container, &["/bin/sh", "-c", "echo out; echo err >&2; exit 3"], 10).await.expect("ran");
    assert_eq!((out.stdout.as_slice(), out.stderr.as_slice(), out.exit_code), (&b"out\n"[..], &b"err\n"[..], 3));
    // A process that stays holds the stream open; what was printed is not lost.
    let daemon = client.exec(&container, &["/bin/sh", "-c", "echo said; sleep 500 & exit 0"], 10).await.expect("ran");
    assert_eq!((daemon.stdout.as_slice(), daemon.exit_code), (&b"said\n"[..], 0));
    let much = client.exec(&container, &["/bin/sh", "-c", "head -c 20m /dev/zero"], 30).await.expect("ran");
    assert_eq!(much.stdout.len(), (16 << 20) - 1024);
    let missing = client.exec(&container, &["/no/such"], 10).await.expect_err("no such program");
    assert!(missing.message().contains("/no/such"), "{missing}");
    let much = "head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2";
    let much = client.exec(&container, &["/bin/sh", "-c", much], 60).await.expect("ran");
    let (stdout, stderr) = (much.stdout.len(), much.stderr.len());
    // It fits into the kubelet's 16 MiB, and both streams have a part of it.
    assert!(stdout + stderr < 16 << 20 && stdout > 4 << 20 && stderr > 4 << 20, "{stdout} and {stderr} bytes");
    let late = client.exec(&container, &["/bin/sh", "-c", "sleep 777"], 1).await.expect_err("too slow");
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
    let left =
        client.exec(&container, &["/bin/sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"], 10).await.expect("ran");
    let left = String::from_utf8_lossy(&left.stdout).into_owned();
    assert!(left.contains("sleep 1000") && !left.contains("sleep 777"), "{left}");
    // A stop that TERM does not achieve: process 1 has no handler for it.
    client.stop(&container, 1).await.expect("stopped");
    let status = client.status(&container).await.expect("status");
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

async fn ends_have_their_reasons(bench: Bench) {
    ends_with_reasons(&bench, "").await;
}

/// With any handler.
pub(crate) async fn ends_with_reasons(bench: &Bench, handler: &str) {
    let client = bench.open().await;
    let sandbox = client.run_with(handler, pod("ends")).await.expect("a sandbox");
    for n in 0..10 {
        // It may be over before another runtime has said that it runs.
        let container = client.create(&sandbox, script(&format!("seven{n}"), "exit 7")).await.expect("created");
        client.start(&container).await.expect("started");
        let status = client.exited(&container).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"));
        assert!(status.finished_at >= status.started_at && status.started_at > 0);
    }
    // Another runtime's own process has its place in there, too.
    let hungry = script("hungry", "head -c 200m /dev/zero | tail -c 200m > /dev/null; exit 9");
    let limits = cri::LinuxContainerResources { memory_limit_in_bytes: 32 << 20, ..Default::default() };
    let container = client.create(&sandbox, limited(hungry, limits)).await.expect("created");
    client.start(&container).await.expect("started");
    let status = client.exited(&container).await;
    assert_eq!(status.reason, "OOMKilled", "{status:?}");

    let mut missing = hello("missing");
    missing.command = vec!["/no/such/program".to_owned()];
    let container = client.create(&sandbox, missing).await.expect("created");
    let error = client.start(&container).await.expect_err("there is no such program");
    assert!(error.message().contains("/no/such/program"), "{error}");
    assert_eq!(error.message().contains("OCI runtime failed"), !handler.is_empty(), "{error}");
    let status = client.status(&container).await.expect("status");
    assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));

    // A shim that dies takes its containers along.
    let container = client.create(&sandbox, script("runs", "sleep 1000")).await.expect("created");
    client.start(&container).await.expect("started");
    for pid in bench.shims() {
        std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill");
    }
    let status = client.exited(&container).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "ContainerStatusUnknown"));
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

async fn a_restart_adopts_what_runs(bench: Bench) {
    let client = bench.open().await;
    let sandbox = client.run(pod("adopted")).await.expect("a sandbox");
    let runs = client.create(&sandbox, script("runs", "while :; do sleep 0.1; done")).await.expect("created");
    let ends = client.create(&sandbox, script("ends", "sleep 0.5; exit 5")).await.expect("created");
    let waits = client.create(&sandbox, hello("waits")).await.expect("created");
    client.start(&runs).await.expect("started");
    client.start(&ends).await.expect("started");
    let before = client.status(&runs).await.expect("status");
    client.service.close().await;
    drop(client);
    let exits = bench.path("state/sandboxes").join(&sandbox).join("exits").join(&ends);
    while !exits.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let client = bench.open().await;
    assert_eq!(client.status(&runs).await.expect("status"), before);
    let status = client.exited(&ends).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (5, "Error"));
    client.start(&waits).await.expect("what was created before is started");
    assert_eq!(client.exec(&runs, &["/bin/true"], 5).await.expect("ran").exit_code, 0);
    let again = client.run(pod("adopted")).await.expect("the same sandbox");
    assert_eq!(again, sandbox);
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

async fn a_dead_shim_is_noticed(bench: Bench) {
    let client = bench.open().await;
    let sandbox = client.run(pod("shimless")).await.expect("a sandbox");
    let container = client.create(&sandbox, script("runs", "sleep 1000")).await.expect("created");
    client.start(&container).await.expect("started");
    let pid = std::fs::read_to_string(bench.path("state/sandboxes").join(&sandbox).join("shim.pid")).expect("shim.pid");
    let killed = std::process::Command::new("kill").args(["-9", pid.trim()]).status().expect("kill");
    assert!(killed.success());
    let status = client.exited(&container).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "ContainerStatusUnknown"));
    let status = client.pod_status(&sandbox).await.expect("a status");
    assert_eq!(status.state(), cri::PodSandboxState::SandboxNotready);
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();

    // The same while nobody watches.
    let sandbox = client.run(pod("shimless")).await.expect("a sandbox");
    let container = client.create(&sandbox, script("runs", "sleep 1000")).await.expect("created");
    client.start(&container).await.expect("started");
    client.service.close().await;
    drop(client);
    for pid in bench.shims() {
        std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill");
    }
    let client = bench.open().await;
    let status = client.status(&container).await.expect("status");
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "ContainerStatusUnknown"));
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

async fn failures_unwind(bench: Bench) {
    let client = bench.open().await;
    bench.write_network(&serde_json::json!({"type": "no-such-plugin"}));
    let error = client.run(pod("unlucky")).await.expect_err("no such plugin");
    assert!(
        error.message().contains("failed to setup network for sandbox") && error.message().contains("no-such-plugin"),
        "{error}"
    );
    // Detaching needs the plugin, too: what can't be undone is shown, and removed once it can be.
    let list = cri::ListPodSandboxRequest::default();
    let left = berth_cri_proto::v1::runtime_service_server::RuntimeService::list_pod_sandbox(
        &*client.service,
        tonic::Request::new(list),
    );
    let left = left.await.expect("a list").into_inner().items;
    for sandbox in left {
        let plugin = bench.config.cni_bin_dirs[0].join("no-such-plugin");
        std::fs::create_dir_all(&bench.config.cni_bin_dirs[0]).expect("a folder");
        std::fs::write(&plugin, "#!/bin/sh\ncat >/dev/null\n").expect("a plugin");
        std::process::Command::new("chmod").arg("+x").arg(&plugin).status().expect("chmod");
        client.remove_pod(&sandbox.id).await.expect("removed");
    }
    bench.assert_clean();
    bench.write_network(&serde_json::json!({
        "type": "bridge", "bridge": "berth-test0",
        "ipam": {"type": "host-local", "dataDir": bench.path("addresses"), "ranges": [[{"subnet": "10.211.0.0/24"}]]},
    }));
    let mut config = pod("unlucky");
    let sysctls = std::collections::HashMap::from([("net.no.such".to_owned(), "1".to_owned())]);
    config.linux = Some(cri::LinuxPodSandboxConfig { sysctls, ..Default::default() });
    let error = client.run(config).await.expect_err("no such sysctl");
    assert!(error.message().contains("net"), "{error}");
    bench.assert_clean();
    let sandbox = client.run(pod("unlucky")).await.expect("a sandbox");
    let mut config = hello("bad");
    config.mounts = vec![cri::Mount {
        host_path: "/proc/version/below".to_owned(),
        container_path: "/x".to_owned(),
        ..cri::Mount::default()
    }];
    let error = client.create(&sandbox, config).await.expect_err("no path");
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(
        !std::fs::read_dir(bench.path("root/containers")).expect("list").flatten().any(|_| true),
        "nothing of it is left"
    );
    let mut config = hello("unknown");
    config.image = Some(cri::ImageSpec { image: "no/such:image".to_owned(), ..Default::default() });
    assert_eq!(client.create(&sandbox, config).await.expect_err("no image").code(), Code::NotFound);
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

async fn calls_are_idempotent(bench: Bench) {
    let client = bench.open().await;
    let nobody = "0".repeat(64);
    client.stop_pod(&nobody).await.expect("stopped");
    client.remove_pod(&nobody).await.expect("removed");
    client.stop(&nobody, 1).await.expect("stopped");
    client.remove(&nobody).await.expect("removed");
    assert_eq!(client.status(&nobody).await.expect_err("nobody").code(), Code::NotFound);
    let sandbox = client.run(pod("twice")).await.expect("a sandbox");
    let (one, two) = tokio::join!(client.run(pod("twice")), client.run(pod("twice")));
    assert_eq!((one.expect("the same"), two.expect("the same")), (sandbox.clone(), sandbox.clone()));
    let mut other = pod("twice");
    other.hostname = "other".to_owned();
    assert_eq!(client.run(other).await.expect_err("reserved").code(), Code::AlreadyExists);
    let container = client.create(&sandbox, script("c", "sleep 1000")).await.expect("created");
    let again = client.create(&sandbox, script("c", "sleep 1000")).await;
    assert_eq!(again.expect("the same"), container);
    assert_eq!(client.create(&sandbox, script("c", "true")).await.expect_err("reserved").code(), Code::AlreadyExists);
    client.start(&container).await.expect("started");
    let again = client.create(&sandbox, script("c", "sleep 1000")).await;
    assert_eq!(again.expect_err("it is started").code(), Code::AlreadyExists);
    assert_eq!(client.start(&container).await.expect_err("twice").code(), Code::FailedPrecondition);
    // A client that hangs up does not stop the stop.
    let hasty = tokio::time::timeout(Duration::from_millis(1), client.stop(&container, 0)).await;
    drop(hasty);
    client.exited(&container).await;
    client.stop(&container, 0).await.expect("stopped");
    client.stop_pod(&sandbox).await.expect("stopped");
    client.stop_pod(&sandbox).await.expect("stopped");
    client.remove_pod(&sandbox).await.expect("removed");
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

async fn a_second_runtime_is_refused(bench: Bench) {
    let client = bench.open().await;
    match Service::open(bench.config.clone()).await {
        Err(OpenError::Locked { pid, .. }) => assert_eq!(pid.unsigned_abs(), std::process::id()),
        other => panic!("{other:?}"),
    }
    drop(client);
    let _ = bench.open().await;
}

async fn every_crash_ends_clean(bench: Bench) {
    crash_everywhere(bench, "", |_| true).await;
}

/// A pod's whole life with a handler, told to stop dead at each of its crash points in turn that belongs to an effect
/// that is `wanted`; the next life leaves nothing of it.
pub(crate) async fn crash_everywhere(bench: Bench, handler: &str, wanted: fn(&str) -> bool) {
    // Once to the end, which also brings the image in: its crash points are the image store's own matter.
    let trace = bench.path("trace");
    assert!(life(&bench, handler, &[("BERTH_CRASH_TRACE", &trace.to_string_lossy())]), "a life without a crash");
    bench.assert_clean();
    let trace = std::fs::read_to_string(&trace).expect("a trace");
    let begin = trace.lines().position(|line| line.ends_with("sandbox-folder-create")).expect("the pod's beginning");
    let effects = trace.lines().count();
    assert!(effects - begin > 15, "{trace}");
    // An effect more or less than before is possible: steps run beside each other.
    let names: Vec<&str> = trace.lines().collect();
    let points: Vec<usize> = (2 * begin + 1..=2 * effects).filter(|point| wanted(names[(point - 1) / 2])).collect();
    assert!(!points.is_empty(), "{trace}");
    for &point in &points {
        life(&bench, handler, &[("BERTH_CRASH_AT", &point.to_string())]);
        let client = bench.open().await;
        let list = cri::ListPodSandboxRequest::default();
        let left = berth_cri_proto::v1::runtime_service_server::RuntimeService::list_pod_sandbox(
            &*client.service,
            tonic::Request::new(list),
        );
        for sandbox in left.await.expect("a list").into_inner().items {
            client.remove_pod(&sandbox.id).await.unwrap_or_else(|error| panic!("point {point}: {error}"));
        }
        let list = cri::ListContainersRequest::default();
        let left = berth_cri_proto::v1::runtime_service_server::RuntimeService::list_containers(
            &*client.service,
            tonic::Request::new(list),
        );
        let left = left.await.expect("a list").into_inner().containers;
        assert!(left.is_empty(), "point {point}: {left:?}");
        client.service.close().await;
        drop(client);
        bench.assert_clean();
    }
    println!("visited {} crash points", points.len());
}

/// Runs [`live`] in a process of its own: whether it came to its end.
fn life(bench: &Bench, handler: &str, environment: &[(&str, &str)]) -> bool {
    let exe = std::env::current_exe().expect("our own path");
    let mut command = std::process::Command::new(exe);
    command
        .arg("life")
        .arg(bench.folder())
        .arg(&bench.config.cgroup_parent)
        .arg(handler)
        .envs(environment.iter().copied());
    command.stderr(std::process::Stdio::null()).status().expect("ourselves").success()
}

/// What a crash interrupts.
pub(crate) async fn live(bench: Bench, handler: &str) {
    let client = bench.open().await;
    let sandbox = client.run_with(handler, pod("mortal")).await.expect("a sandbox");
    let container = client.create(&sandbox, script("c", "sleep 1000")).await.expect("created");
    client.start(&container).await.expect("started");
    client.stop(&container, 0).await.expect("stopped");
    client.remove(&container).await.expect("removed");
    let container = client.create(&sandbox, hello("left")).await.expect("created");
    client.start(&container).await.expect("started");
    client.stop_pod(&sandbox).await.expect("stopped");
    client.remove_pod(&sandbox).await.expect("removed");
    client.service.close().await;
}
