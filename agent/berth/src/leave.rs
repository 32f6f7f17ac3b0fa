//! `berth leave`: this machine is no node any more.
//!
//! The cluster is told as far as a node may and as far as it answers; this machine is cleaned in any case. Every step can be
//! repeated: a leave that died is run again.

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use berth_join::{Installation, Lock, Paths, Phase, process};
use berth_kube::leave;

use crate::cli::Leave;
use crate::{agent, join, state};

/// How long the agent may take to end.
const AGENT_END: Duration = Duration::from_secs(60);

pub(crate) async fn run(options: Leave) -> Result<()> {
    let paths = Paths::default();
    let lock = Lock::take(&paths)?;
    let journal = join::journal(&paths)?;
    let (node, what) = (journal.node.clone(), journal.describe());
    let had_agent = join::has_agent(journal.phase);
    let mut installation = Installation::resume(&paths, journal);
    if had_agent {
        if let Err(error) = installation.advance(Phase::Leaving) {
            println!("[leave] {error}: going on without noting it");
        }
        let agent_options = join::agent_of(&paths);
        let state_dir =
            agent_options.as_ref().map_or_else(|_| "/run/berth".into(), |agent| agent.runtime.state.clone());
        let pid = running(&state_dir);
        drain(&paths, &node, pid.is_some(), Duration::from_secs(options.timeout)).await;
        installation.stop_unit()?;
        // Asked again: a unit's agent is gone by now.
        if let Some(pid) = running(&state_dir) {
            stop(pid).await?;
        }
        match &agent_options {
            Ok(agent_options) => {
                println!("[leave] Stopping the pods that are left on this machine");
                agent::clear(agent_options, !options.keep_images).await.context("stopping this machine's pods")?;
            }
            Err(error) => println!(
                "[leave] The pods on this machine stay: what the agent was started with can't be read: {error:#}"
            ),
        }
        remove_traces(&paths, &state_dir);
    }
    forget(&options, &node).await;
    println!("[leave] Removing what `berth join` installed");
    let errors = installation.undo();
    drop(lock);
    if !errors.is_empty() {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        bail!("not everything could be removed, run `berth leave` again: {}", errors.join("; "));
    }
    println!("Left {what}.");
    println!(
        "What the cluster's network add-ons made here (/etc/cni/net.d, links, packet filter rules) is theirs, and stays."
    );
    Ok(())
}

/// The agent's process, if one is running.
pub(crate) fn running(state_dir: &Path) -> Option<u32> {
    let pid = state::read(state_dir).ok().flatten()?.pid;
    process::is_berth(pid).then_some(pid)
}

/// No new pods, and the others elsewhere, as far as the cluster lets a node do that itself.
async fn drain(paths: &Paths, node: &str, agent_runs: bool, patience: Duration) {
    let work = async {
        let client = berth_kube::connect(&paths.kubeconfig()).await?;
        if !leave::cordon(&client, node).await? {
            println!("[leave] The cluster has no node {node:?} any more");
            return Ok(());
        }
        println!("[leave] Node {node:?} takes no new pods (cordoned); evicting its pods, those of DaemonSets aside");
        leave::evict(&client, node, agent_runs, |pod, what| println!("[leave]   {pod}: {what}")).await?;
        anyhow::Ok(())
    };
    let told = match tokio::time::timeout(patience, work).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => format!("not all pods were gone within {} s", patience.as_secs()),
    };
    println!(
        "[leave] The cluster could not move the pods away ({told}): they are stopped here, with their grace periods"
    );
}

async fn stop(pid: u32) -> Result<()> {
    println!("[leave] Stopping the agent (pid {pid})");
    let ended =
        tokio::task::spawn_blocking(move || process::stop(pid, AGENT_END)).await.context("stopping the agent")?;
    match ended {
        Ok(true) => Ok(()),
        Ok(false) => bail!(
            "the agent (pid {pid}) has not ended within {} s: end it, then run `berth leave` again",
            AGENT_END.as_secs()
        ),
        Err(error) => Err(error).with_context(|| format!("stopping the agent (pid {pid})")),
    }
}

/// What the agent made beside pods. Only what is empty, or the agent's own.
fn remove_traces(paths: &Paths, state_dir: &Path) {
    let note = |what: &Path, outcome: io::Result<()>| match outcome {
        Err(error) if error.kind() != io::ErrorKind::NotFound => println!("[leave] {} stays: {error}", what.display()),
        _ => {}
    };
    note(&state::path(state_dir), state::remove(state_dir));
    let pods = paths.kubelet().join("pods");
    note(&pods, berth_effect::run("agent-folder-remove", || std::fs::remove_dir(&pods)));
    // Both may hold what is others'.
    for folder in [state_dir, Path::new("/var/log/pods"), Path::new("/var/log/containers")] {
        let _ = berth_effect::run("agent-folder-remove", || std::fs::remove_dir(folder));
    }
}

/// The Node's object, which a node may not delete itself.
async fn forget(options: &Leave, node: &str) {
    let by_hand = format!("kubectl delete node {node}");
    let Some(kubeconfig) = &options.kubeconfig else {
        println!("[leave] The Node's object is for an administrator to delete: {by_hand}");
        return;
    };
    let work = async {
        let client = berth_kube::connect(kubeconfig).await?;
        leave::delete_node(&client, node).await?;
        anyhow::Ok(())
    };
    match work.await {
        Ok(()) => println!("[leave] Node {node:?} is deleted"),
        Err(error) => println!("[leave] {error:#}; do it by hand: {by_hand}"),
    }
}
