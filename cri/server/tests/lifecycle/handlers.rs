//! Pods of other OCI runtimes: runc, as Debian has it. (Debian's crun refuses hybrid cgroups.)

use std::path::PathBuf;

use berth_cri_proto::v1 as cri;
use berth_cri_proto::v1::runtime_service_server::RuntimeService;
use tonic::{Code, Request};

use crate::bench::{Bench, Client, hello, pod, script};
use crate::cases::{cases, crash_everywhere, ends_with_reasons};
use crate::pods::images_as_volumes;
use crate::sessions::commands_with_terminals;

cases![
    handlers_are_known_by_their_features,
    another_runtime_runs_a_pod,
    a_runtime_that_went_away_holds_nobody,
    another_runtimes_ends_have_their_reasons,
    another_runtime_gives_terminals,
    another_runtime_has_images_as_volumes,
    a_restart_adopts_another_runtimes_pod,
    every_crash_of_another_runtime_ends_clean,
];

const HANDLERS: [&str; 1] = ["runc"];

/// What a runtime keeps of a container while there is one.
fn state(bench: &Bench, handler: &str, container: &str) -> PathBuf {
    bench.path("state/oci").join(handler).join(container).join("state.json")
}

fn assert_clean(bench: &Bench) {
    bench.assert_clean();
    assert!(!bench.path("state/oci").exists(), "another runtime's state is left");
}

async fn handlers_are_known_by_their_features(bench: Bench) {
    let client = bench.open().await;
    let status = client.service.status(Request::new(cri::StatusRequest::default())).await.expect("a status");
    let handlers = status.into_inner().runtime_handlers;
    let names: Vec<&str> = handlers.iter().map(|handler| handler.name.as_str()).collect();
    assert_eq!(names, ["", "berth", "fails", "missing", "runc"]);
    let recursive = |name: &str| {
        let handler = handlers.iter().find(|handler| handler.name == name).expect("it is listed");
        handler.features.as_ref().expect("features").recursive_read_only_mounts
    };
    assert_eq!(handlers[0].features, handlers[1].features, "berth is the default");
    // Linux 5.12 and later; and what runc 1.1 says of itself.
    assert!(recursive("berth") && recursive("runc"));
    assert!(!recursive("fails") && !recursive("missing"), "who says nothing of itself can do nothing");

    let unknown = client.run_with("nobody", pod("x")).await.expect_err("not configured");
    assert_eq!(unknown.code(), Code::InvalidArgument);
    assert!(unknown.message().contains("no runtime for \"nobody\" is configured"), "{unknown}");
    let missing = client.run_with("missing", pod("x")).await.expect_err("no such program");
    assert!(missing.message().contains("/no/such"), "{missing}");
    let built_in = client.run_with("berth", pod("x")).await.expect("the built-in runtime has a name");
    assert_eq!(client.pod_status(&built_in).await.expect("a status").runtime_handler, "berth");
    client.remove_pod(&built_in).await.expect("removed");

    let mut own_users = pod("users");
    let mapping = cri::IdMapping { host_id: 1 << 20, container_id: 0, length: 65_536 };
    let users = cri::UserNamespace { mode: 0, uids: vec![mapping], gids: vec![mapping] };
    let options = cri::NamespaceOption { pid: 1, userns_options: Some(users), ..Default::default() };
    let security = cri::LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
    own_users.linux = Some(cri::LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() });
    let refused = client.run_with("runc", own_users).await.expect_err("not with another runtime");
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");

    let sandbox = client.run_with("fails", pod("fails")).await.expect("a sandbox needs no runtime");
    let container = client.create(&sandbox, hello("c")).await.expect("created");
    let error = client.start(&container).await.expect_err("/bin/false makes no container");
    assert!(error.message().contains("\"/bin/false\" failed with status 1"), "{error}");
    let status = client.status(&container).await.expect("a status");
    assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
    client.remove_pod(&sandbox).await.expect("removed");
    assert_clean(&bench);
}

async fn another_runtime_runs_a_pod(bench: Bench) {
    for handler in HANDLERS {
        a_pod_runs(&bench, handler).await;
    }
}

async fn a_pod_runs(bench: &Bench, handler: &str) {
    let state = |container: &str| state(bench, handler, container);
    let client = bench.open().await;
    let sandbox = client.run_with(handler, pod("other")).await.expect("a sandbox");
    assert_eq!(client.pod_status(&sandbox).await.expect("a status").runtime_handler, handler);
    let text = "echo out; echo err >&2; trap 'echo bye; exit 3' TERM; echo on; while :; do sleep 0.05; done";
    let container = client.create(&sandbox, script("c", text)).await.expect("created");
    assert!(!state(&container).exists());
    client.start(&container).await.expect("started");
    assert!(state(&container).exists(), "{handler} has made it");
    client.said("c", " stdout F on").await;
    let log = client.log("c");
    assert!(log.contains(" stdout F out\n") && log.contains(" stderr F err\n"), "{log}");
    // Nothing is mounted on the host.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!mounts.contains("bundles"), "{mounts}");

    let run = async |text: &str| client.exec(&container, &["/bin/sh", "-c", text], 10).await;
    let out = run("echo out; echo err >&2; exit 3").await.expect("ran");
    assert_eq!((out.stdout.as_slice(), out.stderr.as_slice(), out.exit_code), (&b"out\n"[..], &b"err\n"[..], 3));
    // In the pod's namespaces and the container's cgroup, on its own root.
    let out =
        run("cat /proc/sys/kernel/hostname /etc/hostname; ls / | grep hello; cut -c1-12 /proc/net/fib_trie | wc -l");
    let out = String::from_utf8(out.await.expect("ran").stdout).expect("text");
    assert!(out.starts_with("other\nother\nhello\n"), "{out}");
    let cgroup = client.inspect(&container).await["runtimeSpec"]["linux"]["cgroupsPath"].clone();
    let cgroup = cgroup.as_str().expect("a cgroup").to_owned();
    let pids = crate::bench::cgroup_file(&cgroup, "memory", ("cgroup.procs", "cgroup.procs"));
    assert!(!pids.is_empty(), "it is in its cgroup");
    let missing = client.exec(&container, &["/no/such"], 10).await.expect_err("no such program");
    assert!(missing.message().contains("/no/such"), "{missing}");
    let late = client.exec(&container, &["/bin/sh", "-c", "sleep 777"], 1).await.expect_err("too slow");
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
    let left = run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").await.expect("ran").stdout;
    assert!(!String::from_utf8_lossy(&left).contains("sleep 777"), "{left:?}");
    for _ in 0..20 {
        // One that is over before it is told of.
        assert_eq!(client.exec(&container, &["/bin/true"], 10).await.expect("ran").exit_code, 0);
    }
    let bundle = bench.path("state/sandboxes").join(&sandbox).join("bundles").join(&container);
    let names = std::fs::read_dir(bundle).expect("a bundle").flatten().map(|entry| entry.file_name());
    let names: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with("exec-")).collect();
    assert!(names.is_empty(), "files of commands are left: {names:?}");

    client.stop(&container, 20).await.expect("stopped");
    let status = client.status(&container).await.expect("a status");
    assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
    assert!(client.log("c").contains("bye"), "it got its stop signal");
    client.remove(&container).await.expect("removed");
    assert!(!state(&container).exists(), "{handler} has forgotten it");
    let container = client.create(&sandbox, script("d", "exec sleep 1000")).await.expect("created");
    client.start(&container).await.expect("started");
    client.remove_pod(&sandbox).await.expect("removed with what runs in it");
    assert_clean(bench);
}

async fn a_runtime_that_went_away_holds_nobody(bench: Bench) {
    let client = bench.open().await;
    let program = bench.path("runc");
    std::fs::copy("/usr/sbin/runc", &program).expect("a copy");
    let mut bench = bench;
    let handler = berth_cri::Handler { path: program.clone(), args: Vec::new() };
    bench.config.handlers.others.insert("runc".to_owned(), handler);
    client.service.close().await;
    drop(client);
    let client = bench.open().await;
    let sandbox = client.run_with("runc", pod("left")).await.expect("a sandbox");
    let container = client.create(&sandbox, script("c", "exec sleep 1000")).await.expect("created");
    client.start(&container).await.expect("started");
    assert!(state(&bench, "runc", &container).exists());
    std::fs::remove_file(&program).expect("removed");
    client.exec(&container, &["/bin/true"], 10).await.expect_err("there is nobody to do it");
    client.remove_pod(&sandbox).await.expect("removed without its runtime");
    assert_clean(&bench);
}

async fn another_runtimes_ends_have_their_reasons(bench: Bench) {
    for handler in HANDLERS {
        ends_with_reasons(&bench, handler).await;
        assert_clean(&bench);
    }
}

async fn another_runtime_gives_terminals(bench: Bench) {
    for handler in HANDLERS {
        commands_with_terminals(&bench, handler).await;
        assert_clean(&bench);
    }
}

async fn another_runtime_has_images_as_volumes(bench: Bench) {
    for handler in HANDLERS {
        images_as_volumes(&bench, handler).await;
        assert_clean(&bench);
    }
}

async fn a_restart_adopts_another_runtimes_pod(bench: Bench) {
    let client = bench.open().await;
    let sandbox = client.run_with("runc", pod("adopted")).await.expect("a sandbox");
    let start = async |client: &Client, name: &str, text: &str| {
        let container = client.create(&sandbox, script(name, text)).await.expect("created");
        client.start(&container).await.expect("started");
        container
    };
    let runs = start(&client, "runs", "while :; do sleep 0.1; done").await;
    let ends = start(&client, "ends", "sleep 0.5; exit 5").await;
    let waits = client.create(&sandbox, script("waits", "exit 6")).await.expect("created");
    let before = client.status(&runs).await.expect("status");
    client.service.close().await;
    drop(client);
    let exits = bench.path("state/sandboxes").join(&sandbox).join("exits").join(&ends);
    while !exits.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    // Another configuration changes nothing for a pod that is there.
    let mut bench = bench;
    bench.config.handlers = berth_cri::Handlers::default();
    let client = bench.open().await;
    assert_eq!(client.status(&runs).await.expect("status"), before);
    assert_eq!(client.exited(&ends).await.exit_code, 5);
    client.start(&waits).await.expect("what was created before is started");
    assert_eq!(client.exited(&waits).await.exit_code, 6);
    assert_eq!(client.exec(&runs, &["/bin/true"], 5).await.expect("ran").exit_code, 0);
    assert_eq!(client.pod_status(&sandbox).await.expect("a status").runtime_handler, "runc");
    client.remove_pod(&sandbox).await.expect("removed");
    assert_clean(&bench);
}

async fn every_crash_of_another_runtime_ends_clean(bench: Bench) {
    let ours = |effect: &str| ["bundle", "oci-runtime", "durable"].iter().any(|word| effect.contains(word));
    crash_everywhere(bench, "runc", ours).await;
}
