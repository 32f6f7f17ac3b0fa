//! Calls that meet: a client that lost its answers asks for something else while the first is still being done.

use std::time::Duration;

use berth_cri_proto::v1 as cri;
use berth_cri_proto::v1::runtime_service_server::RuntimeService;
use tonic::{Code, Request};

use crate::bench::{Bench, Client, hello, pod, script};
use crate::cases::cases;

/// Each meeting happens so often, the second call a little later each time.
const ROUNDS: u32 = 16;
const LATER: Duration = Duration::from_micros(700);

cases![
    a_container_created_in_a_sandbox_that_goes_goes_too,
    a_container_started_in_a_sandbox_that_stops_is_stopped,
    a_container_removed_while_it_starts_is_gone,
    a_sandbox_asked_for_while_it_goes_is_made_anew,
    a_command_ends_with_its_shim,
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
        // Once the command runs.
        while client
            .exec(&container, &["/bin/sh", "-c", "cat /proc/[0-9]*/cmdline | grep -q 777"], 10)
            .await
            .is_ok_and(|answer| answer.exit_code != 0)
        {}
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
