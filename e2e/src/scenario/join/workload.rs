//! What the cluster is there for: a Deployment, a Service through kube-proxy, names through CoreDNS, logs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Stage, manifests};
use crate::kube::{self, Kube};
use crate::wait;

const REPLICAS: usize = 2;
/// Three images of some 60 MB are pulled, unpacked and started by a program without optimisation.
const PATIENCE: Duration = Duration::from_secs(240);
/// The first address of the service network.
const CLUSTER: &str = "10.96.0.1";

/// Applies the Deployment and the Service, and waits until it and the cluster's own pods are Ready.
pub(super) fn deploy(stage: &Stage, kube: &Kube) -> Result<()> {
    await_pods(kube, "k8s-app=kube-proxy", 1)?;
    stage.say("kube-proxy runs");
    await_pods(kube, "k8s-app=kube-dns", 2)?;
    stage.say("CoreDNS is Ready");
    kube.apply(&manifests::web(stage.registry(), REPLICAS))?;
    wait::until_true("the web servers are Ready", kube::PATIENCE, || {
        Ok(kube.list("pods", "app=web")?.iter().filter(|pod| kube::ready(pod)).count() == REPLICAS)
    })
}

/// Waits until `count` of kube-system's pods of a label are Ready, and no other is there.
pub(super) fn await_pods(kube: &Kube, selector: &str, count: usize) -> Result<()> {
    wait::until_true(&format!("{count} pods with {selector} are Ready"), PATIENCE, || {
        let pods = kube.list_where("pods", &["--namespace", "kube-system", "--selector", selector])?;
        Ok(pods.len() == count && pods.iter().all(kube::ready))
    })
}

/// A pod on `node` resolves names and reaches the Service; its log is served.
pub(super) fn is_served(stage: &Stage, kube: &Kube, node: &str) -> Result<()> {
    kube.apply(&manifests::client(stage.registry(), node))?;
    asked(kube, node)?;
    stage.say(&format!("a pod on {node} resolves names through CoreDNS, reaches the Service, and its log is served"));
    Ok(())
}

fn asked(kube: &Kube, node: &str) -> Result<()> {
    let client = format!("client-{node}");
    let phase = kube.await_pod(&client, "has asked", |pod| {
        pod["status"]["phase"].as_str().filter(|phase| ["Succeeded", "Failed"].contains(phase)).map(str::to_owned)
    });
    let log = kube.run(&["logs", &client])?;
    let phase = phase.with_context(|| format!("its log: {log}"))?;
    ensure!(phase == "Succeeded", "the client on {node} is not served: {log}");
    let service = kube.get("service", "web")?.context("the Service is gone")?;
    let address = service["spec"]["clusterIP"].as_str().context("the Service has no address")?;
    let words: Vec<&str> = log.split_whitespace().collect();
    let ["cluster", cluster, "service", found, "answer", answer] = words[..] else {
        anyhow::bail!("the client on {node} says {log:?}");
    };
    ensure!(cluster == CLUSTER && found == address, "names are resolved to other addresses: {log:?}");
    let web = kube.list("pods", "app=web")?;
    ensure!(web.iter().any(|pod| kube::name(pod) == answer), "{answer} answers, which is no pod of the Deployment");
    Ok(())
}

/// The same again from new pods.
pub(super) fn is_served_still(stage: &Stage, kube: &Kube, nodes: &[&str]) -> Result<()> {
    for node in nodes {
        kube.delete(&[&format!("pod/client-{node}")])?;
        kube.apply(&manifests::client(stage.registry(), node))?;
    }
    for node in nodes {
        asked(kube, node)?;
    }
    stage.say("new pods are served on both nodes");
    Ok(())
}

/// Takes away what [`deploy`] and [`is_served`] have applied.
pub(super) fn withdraw(stage: &Stage, kube: &Kube) -> Result<()> {
    kube.delete(&["deployment/web", "service/web"])?;
    kube.run(&["delete", "pods", "--selector", "app=client", "--wait=true", "--timeout=90s"])?;
    wait::until_true("the pods are gone", kube::PATIENCE, || Ok(kube.list("pods", "")?.is_empty()))?;
    stage.say("the Deployment, its Service and the clients are gone");
    Ok(())
}
