//! `berth standalone`: the pods of a folder, with no cluster.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use berth_cri::Service;
use berth_image::import::Layout;
use berth_manifest::folder::{Folder, Snapshot};
use berth_pods::{Config, Cri, NodeFacts, Pods, Source};
use berth_volumes::NoCluster;
use tokio::sync::mpsc;

use crate::cli::{PodNetwork, Standalone};
use crate::console::Console;
use crate::network::BridgeNetwork;
use crate::{host, runtime};

/// The sample image's name; a pod takes it with `imagePullPolicy: Never` or `IfNotPresent`.
pub(crate) const HELLO_IMAGE: &str = "berth.local/hello:latest";

pub(crate) async fn run(options: Standalone) -> Result<()> {
    let folder = options.dir.canonicalize().with_context(|| options.dir.display().to_string())?;
    let network = match options.pod_network {
        PodNetwork::Bridge => Some(BridgeNetwork::new(&options.runtime.state, &options.pod_cidr)?),
        PodNetwork::Off => None,
    };
    let service = runtime::open(&options.runtime).await?;
    println!("berth: runtime open ({}, {})", options.runtime.root.display(), options.runtime.state.display());
    if let Some(network) = &network {
        network.write()?;
        println!("berth: pod network {} on a bridge of its own", options.pod_cidr);
    }
    import_hello(&service).await?;
    let config = Config {
        node_name: host::name(),
        root_dir: options.root_dir.clone(),
        pod_logs_dir: options.pod_logs_dir.clone(),
        container_logs_dir: None,
        ..Config::default()
    };
    let pods = Pods::start(
        config,
        Cri::local(Arc::clone(&service)),
        Arc::new(NoCluster::new()),
        Arc::new(Console::default()),
        &[Source::Files],
    )
    .await?;
    pods.set_node(node_facts());
    println!("berth: running the pods of {} (Ctrl-C stops them)", folder.display());
    let (sender, snapshots) = mpsc::channel(1);
    let watch = tokio::spawn(Folder::new(&folder, host::name()).watch(sender));
    let outcome = follow(&pods, snapshots).await;
    watch.abort();
    println!("\nberth: stopping the pods");
    pods.stop_all().await;
    pods.close().await;
    remove_hello(&service).await;
    if let Some(network) = &network {
        network.withdraw()?;
    }
    service.dismantle().await;
    remove_empty(&[&options.root_dir.join("pods"), &options.root_dir, &options.pod_logs_dir]);
    println!("berth: everything is gone");
    outcome
}

/// Takes what the folder says until the process is asked to end.
async fn follow(pods: &Pods, mut snapshots: mpsc::Receiver<Snapshot>) -> Result<()> {
    let mut told = HashSet::new();
    let mut ended = std::pin::pin!(runtime::asked_to_end());
    loop {
        let snapshot = tokio::select! {
            ended = &mut ended => return ended,
            snapshot = snapshots.recv() => snapshot.context("the folder can't be watched any more")?,
        };
        let problems: HashSet<String> = snapshot.problems.iter().map(ToString::to_string).collect();
        for problem in problems.difference(&told).collect::<BTreeSet<_>>() {
            eprintln!("berth: {problem}");
        }
        told = problems;
        if snapshot.pods.is_empty() {
            println!("berth: no pod in the folder yet");
        }
        let uids: Vec<String> = snapshot.pods.iter().filter_map(|pod| pod.metadata.uid.clone()).collect();
        for pod in snapshot.pods {
            pods.set(Source::Files, pod);
        }
        pods.synced(Source::Files, &uids);
    }
}

fn node_facts() -> NodeFacts {
    let memory = host::memory();
    NodeFacts {
        ips: host::address().into_iter().map(|ip| ip.to_string()).collect(),
        memory_capacity: memory,
        allocatable: [("cpu".to_owned(), host::cpus() * 1000), ("memory".to_owned(), memory)].into(),
    }
}

/// Brings in the sample workload that this program carries, through the same checks as any image.
async fn import_hello(service: &Service) -> Result<()> {
    let mut config = oci_spec::image::Config::default();
    config.set_entrypoint(Some(vec!["/hello".to_owned()]));
    let layout = Layout::single_binary("/hello", berth_carried::HELLO, &config).context("the carried image")?;
    service.images().import_layout(HELLO_IMAGE, layout, false).await.context("the carried image")?;
    println!("berth: image {HELLO_IMAGE} (carried in this program)");
    Ok(())
}

/// What standalone brought in itself goes with it, unless a pod that could not be stopped still uses it.
async fn remove_hello(service: &Service) {
    let images = service.images().clone();
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || images.remove(HELLO_IMAGE)).await {
        tracing::warn!(%error, "removing the carried image");
    }
}

/// Folders that this run may have made; one that holds something stays.
fn remove_empty(folders: &[&Path]) {
    for folder in folders {
        let _ = std::fs::remove_dir(folder);
    }
}
