//! Calls that meet: a client that lost its answers asks for something else while the first is still being done.

use std::sync::Arc;
use std::time::Duration;

use berth_cri::{OpenError, Service};
use berth_cri_proto::v1 as cri;
use berth_cri_proto::v1::runtime_service_server::RuntimeService;
use tonic::{Code, Request};

use crate::bench::{Bench, Client, hello, pod, script};
use crate::cases::cases;

/// Each meeting happens so often, the second call a little later each time.
const ROUNDS: u32 = 16;
const LATER: Duration = Duration::from_micros(700);
/// Longer than anything takes; a test that reaches it fails.
const PATIENCE: Duration = Duration::from_secs(60);

cases![
    a_container_created_in_a_sandbox_that_goes_goes_too,
    a_container_started_in_a_sandbox_that_stops_is_stopped,
    a_container_removed_while_it_starts_is_gone,
    a_sandbox_asked_for_while_it_goes_is_made_anew,
    a_command_ends_with_its_shim,
    a_command_without_a_limit_keeps_no_runtime,
    a_command_in_a_container_that_has_just_ended_is_refused,
];

/// Nothing is listed.
async fn assert_nothing(client: &Client) {
    let request = Request::new(cri::ListContainersRequest::default());
    let left = client.service.list_containers(request).await.expect("a list").into_inner().containers;
    assert!(left.is_empty(), "{left:?}");
    let request = Request::new(cri::ListPodSandboxRequest::default());
    let left = client.service.list_pod_sandbox(request).await.expect("a list").into_inner().items;
    assert!(left.is_empty(), "{left:?}");
}

async fn a_container_created_in_a_sandbox_that_goes_goes_too(bench: Bench) {
    let client = bench.open().await;
    for round in 0..ROUNDS {
        let sandbox = client.run(pod("going")).await.expect("a sandbox");
        let remove = async {
            tokio::time::sleep(LATER * round).await;
            client.remove_pod(&sandbox).await
        };
        let (created, removed) = tokio::join!(client.create(&sandbox, hello("late")), remove);
        removed.unwrap_or_else(|error| panic!("round {round}: {error}"));
        if let Err(error) = created {
            assert!(matches!(error.code(), Code::FailedPrecondition | Code::NotFound), "round {round}: {error}");
        }
        assert_nothing(&client).await;
    }
    bench.assert_clean();
}

async fn a_container_started_in_a_sandbox_that_stops_is_stopped(bench: Bench) {
    let client = bench.open().await;
    for round in 0..ROUNDS {
        let sandbox = client.run(pod("stopping")).await.expect("a sandbox");
        let container = client.create(&sandbox, script("late", "sleep 1000")).await.expect("created");
        let stop = async {
            tokio::time::sleep(LATER * round).await;
            client.stop_pod(&sandbox).await
        };
        let (started, stopped) = tokio::join!(client.start(&container), stop);
        stopped.unwrap_or_else(|error| panic!("round {round}: {error}"));
        if let Err(error) = started {
            assert_eq!(error.code(), Code::FailedPrecondition, "round {round}: {error}");
        }
        let state = client.status(&container).await.expect("status").state();
        assert_ne!(state, cri::ContainerState::ContainerRunning, "round {round}");
        client.remove_pod(&sandbox).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
    assert_nothing(&client).await;
    bench.assert_clean();
}

async fn a_container_removed_while_it_starts_is_gone(bench: Bench) {
    let client = bench.open().await;
    let sandbox = client.run(pod("busy")).await.expect("a sandbox");
    for round in 0..ROUNDS {
        let container = client.create(&sandbox, script("late", "sleep 1000")).await.expect("created");
        let remove = async {
            tokio::time::sleep(LATER * round).await;
            client.remove(&container).await
        };
        let (started, removed) = tokio::join!(client.start(&container), remove);
        removed.unwrap_or_else(|error| panic!("round {round}: {error}"));
        if let Err(error) = started {
            assert_eq!(error.code(), Code::NotFound, "round {round}: {error}");
        }
        assert_eq!(client.status(&container).await.expect_err("removed").code(), Code::NotFound);
    }
    // The shim holds none of them any more: it leaves when it is asked to.
    let exits = bench.path("state/sandboxes").join(&sandbox).join("exits");
    let left: Vec<_> = std::fs::read_dir(exits).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
    client.remove_pod(&sandbox).await.expect("removed");
    assert_nothing(&client).await;
    bench.assert_clean();
}

async fn a_sandbox_asked_for_while_it_goes_is_made_anew(bench: Bench) {
    let client = bench.open().await;
    let first = client.run(pod("again")).await.expect("a sandbox");
    let container = client.create(&first, script("c", "trap '' TERM; sleep 1000")).await.expect("created");
    client.start(&container).await.expect("started");
    let again = async {
        // Until its end has begun.
        while client
            .status(&container)
            .await
            .is_ok_and(|status| status.state() == cri::ContainerState::ContainerRunning)
        {
            tokio::task::yield_now().await;
        }
        client.run(pod("again")).await
    };
    let (removed, second) = tokio::join!(client.remove_pod(&first), again);
    removed.expect("removed");
    let second = second.expect("another sandbox");
    assert_ne!(second, first);
    assert_eq!(client.pod_status(&second).await.expect("a status").state(), cri::PodSandboxState::SandboxReady);
    client.remove_pod(&second).await.expect("removed");
    assert_nothing(&client).await;
    bench.assert_clean();
}

async fn a_command_ends_with_its_shim(bench: Bench) {
    let client = bench.open().await;
    let sandbox = client.run(pod("shimless")).await.expect("a sandbox");
    let container = client.create(&sandbox, script("runs", "sleep 1000")).await.expect("created");
    client.start(&container).await.expect("started");
    let kill = async {
        until_runs(&client, &container, "777").await;
        for pid in bench.shims() {
            std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill");
        }
    };
    let command = client.exec(&container, &["/bin/sleep", "777"], 0);
    let both = async { tokio::join!(command, kill).0 };
    let outcome = tokio::time::timeout(Duration::from_secs(60), both).await.expect("the command is given up");
    assert_eq!(outcome.expect_err("its shim is gone").code(), Code::Unavailable);
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

/// Waits until a command with a word of its own runs in a container.
async fn until_runs(client: &Client, container: &str, word: &str) {
    // The brackets keep the search from finding itself.
    let (first, rest) = word.split_at(1);
    let search = format!("cat /proc/[0-9]*/cmdline | grep -q '[{first}]{rest}'");
    while client.exec(container, &["/bin/sh", "-c", &search], 10).await.is_ok_and(|answer| answer.exit_code != 0) {}
}

async fn a_command_without_a_limit_keeps_no_runtime(bench: Bench) {
    let mut client = bench.open().await;
    let sandbox = client.run(pod("unlimited")).await.expect("a sandbox");
    let container = client.create(&sandbox, script("runs", "sleep 1000")).await.expect("created");
    client.start(&container).await.expect("started");
    for (closed, word) in [(true, "777"), (false, "778")] {
        let request = cri::ExecSyncRequest {
            container_id: container.clone(),
            cmd: ["/bin/sleep", word].map(str::to_owned).to_vec(),
            timeout: 0,
        };
        let service = Arc::clone(&client.service);
        let command = tokio::spawn(async move {
            let outcome = service.exec_sync(Request::new(request)).await;
            drop(service);
            outcome
        });
        until_runs(&client, &container, word).await;
        if closed {
            tokio::time::timeout(PATIENCE, client.service.close()).await.expect("nothing is waited for without end");
            let error = command.await.expect("no panic").expect_err("nobody hears of its end");
            assert_eq!(error.code(), Code::Unavailable, "{error}");
            assert!(error.message().contains("the container runtime is ending"), "{error}");
        } else {
            // As when a client has hung up: what it has asked for is a task of the runtime's own.
            command.abort();
            let _ = command.await;
        }
        drop(client);
        let reopen = async {
            loop {
                match Service::open(bench.config.clone()).await {
                    Ok(service) => break service.close().await,
                    Err(error) => assert!(!closed && matches!(error, OpenError::Locked { .. }), "{error}"),
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reopen).await.expect("the lock is free");
        client = bench.open().await;
        // The restart has not disturbed it.
        until_runs(&client, &container, word).await;
    }
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

/// The kernel has ended the container and its cgroup is gone, and the runtime has not heard of it: its shim is stopped.
async fn a_command_in_a_container_that_has_just_ended_is_refused(bench: Bench) {
    let client = bench.open().await;
    let sandbox = client.run(pod("ending")).await.expect("a sandbox");
    let container = client.create(&sandbox, script("ends", "sleep 1000")).await.expect("created");
    client.start(&container).await.expect("started");
    let inspected = client.inspect(&container).await;
    let pid = inspected["pid"].as_i64().expect("a process");
    let shims = bench.shims();
    let signal = |signal: &str, pid: &dyn std::fmt::Display| {
        let sent = std::process::Command::new("kill").args([signal, &pid.to_string()]).status().expect("kill");
        assert!(sent.success());
    };
    shims.iter().for_each(|shim| signal("-STOP", shim));
    signal("-KILL", &pid);
    while !std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("not reaped").contains(") Z ") {
        tokio::task::yield_now().await;
    }
    let host = berth_cgroup::Host::detect().expect("cgroups");
    let cgroup = inspected["cgroupsPath"].as_str().expect("a cgroup");
    host.open(cgroup).and_then(|cgroup| cgroup.remove()).expect("it is empty");
    let error = client.exec(&container, &["/bin/true"], 10).await.expect_err("there is nothing to run it in");
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    assert!(error.message().contains("it has ended"), "{error}");
    shims.iter().for_each(|shim| signal("-CONT", shim));
    assert_eq!(client.exited(&container).await.exit_code, 137);
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}
