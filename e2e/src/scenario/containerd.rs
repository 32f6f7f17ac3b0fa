//! containerd with `berth-oci` as its runtime's `BinaryName`: pods' lives through its CRI.

use std::fs;

use anyhow::{Context, Result, ensure};
use berth_cri_proto::v1::ContainerState;
use serde_json::Value;

use crate::bench::{Containerd, OURS};
use crate::cri::config::UNTIL_TERM;
use crate::cri::{self, Client, Sandbox};
use crate::registry::{self, Registry};
use crate::{command, paths};

/// Where containerd's shim has the runtime keep its records.
const RECORDS: &str = "/run/containerd/runc/k8s.io";
/// Pods at once.
const MANY: usize = 5;

/// Plays the scenario; call it in a house.
///
/// # Errors
/// What was not as it should be.
pub fn play() -> Result<()> {
    let dir = paths::scratch("containerd")?;
    let registry = Registry::start(&dir.join("registry"), "127.0.0.1:5000")?;
    registry.push_standard()?;
    let containerd = Containerd::start(&dir.join("containerd"), &registry)?;
    cri::executor()?.block_on(async {
        let image = registry.name(registry::BUSYBOX);
        let client = Client::connect(&containerd.socket(), &image, &dir.join("logs")).await?;
        let mut client = client.with_handler(OURS);
        client.pull().await?;
        Box::pin(life(&mut client)).await?;
        println!("containerd: a container's start, output, exec, limits, statistics and end");
        Box::pin(ends(&mut client)).await?;
        println!("containerd: exit codes, a program that is not there, a container that is killed with its pod");
        together(&client).await?;
        println!("containerd: {MANY} pods at once");
        anyhow::Ok(())
    })?;
    let left: Vec<_> = fs::read_dir(RECORDS)?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(left.is_empty(), "records of {left:?} are left");
    drop(containerd);
    registry.stop()?;
    cri::remove_cgroups();
    println!("containerd: nothing is left");
    fs::remove_dir_all(dir)?;
    Ok(())
}

/// What `berth-oci` itself says of a container of containerd's.
fn record(id: &str) -> Result<Value> {
    let mut state = std::process::Command::new(paths::berth(OURS));
    let text = command::output(state.args(["--root", RECORDS, "state", id]))?;
    serde_json::from_str(&text).context("the state")
}

async fn life(client: &mut Client) -> Result<()> {
    let (sandbox, _) = client.run_sandbox(1).await?;
    let (container, _) = client.start_container(&sandbox, UNTIL_TERM).await?;
    ensure!(record(&container)?["status"] == "running", "the container is not berth-oci's");
    let said = client.exec(&container, "hostname; cat /proc/1/comm; echo $((6 * 7))").await?;
    ensure!(said == ("pod-1\nsh\n42\n".to_owned(), 0), "exec: {said:?}");
    ensure!(client.exec(&container, "exit 3").await?.1 == 3, "exec's exit code");
    ensure!(client.memory_of(&container).await? > 0, "memory");
    client.limit_memory(&container, 100 << 20).await?;
    let limit = client.exec(&container, "cat /sys/fs/cgroup/memory/memory.limit_in_bytes").await?;
    ensure!(limit.0.trim() == (100 << 20).to_string(), "the new limit: {limit:?}");
    client.stop_container(&container).await?;
    let state = client.state_of(&container).await?;
    ensure!(state == (ContainerState::ContainerExited, 0), "after SIGTERM: {state:?}");
    client.remove_container(&container).await?;
    client.remove_sandbox(&sandbox).await?;
    Ok(())
}

async fn ends(client: &mut Client) -> Result<()> {
    let (sandbox, _) = client.run_sandbox(2).await?;
    let (container, _) = client.start_container(&sandbox, "exit 7").await?;
    client.await_exit(&container).await?;
    ensure!(client.state_of(&container).await?.1 == 7, "the exit code");
    client.remove_container(&container).await?;
    let container = client.create_container(&sandbox, 1, &["/no-such-program"]).await?;
    let refused = client.start(&container).await.map(drop).err().context("a program that is not there starts")?;
    ensure!(format!("{refused:#}").contains("no-such-program"), "{refused:#}");
    client.remove_container(&container).await?;
    // Ended with its pod, and not by itself.
    client.start_container(&sandbox, "trap '' TERM; sleep 1000").await?;
    client.remove_sandbox(&sandbox).await?;
    Ok(())
}

async fn together(client: &Client) -> Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 10..10 + MANY {
        let mut client = client.clone();
        tasks.spawn(async move {
            let (sandbox, _): (Sandbox, _) = client.run_sandbox(number).await?;
            let (container, _) = client.start_container(&sandbox, UNTIL_TERM).await?;
            ensure!(client.exec(&container, "true").await?.1 == 0, "exec in pod {number}");
            client.remove_sandbox(&sandbox).await?;
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}
