//! `berth agent`: wiring of a cluster's node.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use berth_api::{AlwaysAllow, Authorizer, Server, Settings};
use berth_cri::Service;
use berth_cri_proto::v1::{StatusRequest, VersionRequest};
use berth_kube::{AccessReview, ClusterObjects, Health, NodeOptions};
use berth_manifest::config::{self, Authorization, KubeletConfig};
use berth_manifest::folder::Folder;
use berth_pods::{Config, Cri, NodeFacts, Pods, Source};
use tokio::sync::{mpsc, watch};

use crate::cli::{Agent, PodNetwork};
use crate::network::BridgeNetwork;
use crate::{host, runtime};

/// `status.nodeInfo.kubeletVersion`: the Kubernetes version whose behaviour is followed, and Berth's own number.
const VERSION: &str = concat!("v1.37.2+berth.", env!("CARGO_PKG_VERSION"));

/// How often the runtime is asked whether it and its network are ready. Nothing in the CRI tells of a change.
const HEALTH: Duration = Duration::from_secs(1);
const HEALTH_READY: Duration = Duration::from_secs(10);

/// How often a runtime behind a socket is listed to catch lost events.
const RELIST_REMOTE: Duration = Duration::from_secs(10);

pub(crate) async fn run(options: Agent) -> Result<()> {
    let config = load_config(&options)?;
    let name = options.hostname_override.clone().unwrap_or_else(host::name).to_lowercase();
    let ip = options.node_ip.or_else(host::address).context("this host has no address: give one with --node-ip")?;
    let client = berth_kube::connect(&options.kubeconfig).await?;
    let (cri, service) = open_runtime(&options, &config).await?;

    let (health, healthy) = watch::channel(health_of(&cri).await);
    tokio::spawn(keep_health(cri.clone(), health));
    let publisher = Arc::new(berth_kube::Publisher::new(client.clone(), &name));
    let objects = Arc::new(ClusterObjects::new(client.clone()));
    let sources: &[Source] =
        if config.static_pod_path.is_some() { &[Source::Api, Source::Files] } else { &[Source::Api] };
    let pods =
        Pods::start(pods_config(&options, &config, &name, &cri), cri.clone(), objects.clone(), publisher, sources)
            .await
            .context("starting the pod workers")?;
    pods.set_node(node_facts(ip, config.max_pods));

    // Bound before the node says where it listens.
    let authorizer: Arc<dyn Authorizer> = match config.authorization {
        Authorization::Webhook => Arc::new(AccessReview::new(client.clone(), name.clone())),
        Authorization::AlwaysAllow => Arc::new(AlwaysAllow),
    };
    let settings = Settings {
        address: SocketAddr::new(config.address, config.port),
        tls: config.tls.clone(),
        names: vec![name.clone(), ip.to_string()],
        client_ca_file: config.client_ca_file.clone(),
        anonymous: config.anonymous,
    };
    let server = Server::bind(&settings, pods.clone(), authorizer).await?;
    tokio::spawn(server.run());
    if let Some((address, port)) = config.healthz {
        tokio::spawn(health_endpoint(SocketAddr::new(address, port)));
    }
    if let Some(folder) = &config.static_pod_path {
        tokio::spawn(static_pods(Folder::new(folder, name.clone()), Arc::clone(&pods)));
    }

    let node = register(client.clone(), &options, &config, &name, ip, &cri, healthy).await?;
    if options.pod_network == PodNetwork::Bridge {
        tokio::spawn(pod_network(options.runtime.state.clone(), node.pod_cidrs()));
    }
    tokio::spawn(node.run());
    let watched = Arc::clone(&pods);
    tokio::spawn(async move { berth_kube::watch_pods(client, &name, watched, objects).await });

    let outcome = runtime::asked_to_end().await;
    pods.close().await;
    if let Some(service) = service {
        service.close().await;
    }
    outcome
}

/// Serves `/healthz` on loopback. That its address is taken is said, and keeps no pod from running.
async fn health_endpoint(address: SocketAddr) {
    let Err(error) = berth_api::healthz(address).await;
    tracing::error!(%error, "health endpoint");
}

fn load_config(options: &Agent) -> Result<KubeletConfig> {
    let Some(path) = &options.config else { return Ok(config::defaults()) };
    let text = std::fs::read_to_string(path).with_context(|| format!("--config {}", path.display()))?;
    let loaded = config::load(path, &text)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(loaded.config)
}

/// The runtime in this process, unless another one is named.
async fn open_runtime(options: &Agent, config: &KubeletConfig) -> Result<(Cri, Option<Arc<Service>>)> {
    match options.container_runtime_endpoint.as_ref().or(config.container_runtime_endpoint.as_ref()) {
        Some(endpoint) => {
            let cri = Cri::remote(runtime::socket_path(endpoint)?)?;
            let version = cri.version(VersionRequest::default()).await;
            let version = version.map_err(|status| anyhow::anyhow!("{endpoint}: {}", status.message()))?;
            tracing::info!(endpoint, name = version.runtime_name, version = version.runtime_version, "using runtime");
            Ok((cri, None))
        }
        None => {
            let service = runtime::open(&options.runtime).await?;
            Ok((Cri::local(Arc::clone(&service)), Some(service)))
        }
    }
}

fn pods_config(options: &Agent, config: &KubeletConfig, name: &str, cri: &Cri) -> Config {
    let defaults = Config::default();
    Config {
        node_name: name.to_owned(),
        root_dir: options.root_dir.clone(),
        container_logs_dir: defaults.container_logs_dir.filter(|_| options.pod_logs_dir == defaults.pod_logs_dir),
        pod_logs_dir: options.pod_logs_dir.clone(),
        cluster_dns: config.cluster_dns.iter().map(ToString::to_string).collect(),
        cluster_domain: config.cluster_domain.clone(),
        resolv_conf: config.resolv_conf.clone(),
        pod_pids_limit: config.pod_pids_limit.and_then(|limit| i64::try_from(limit).ok()),
        cgroup_root: format!("{}/kubepods", config.cgroup_root.trim_end_matches('/')),
        relist: if cri.is_remote() { RELIST_REMOTE } else { defaults.relist },
        ..Config::default()
    }
}

fn node_facts(ip: IpAddr, max_pods: u32) -> NodeFacts {
    let memory = host::memory();
    let allocatable = [("cpu", host::cpus() * 1000), ("memory", memory), ("pods", i64::from(max_pods))]
        .map(|(k, v)| (k.to_owned(), v));
    NodeFacts { ips: vec![ip.to_string()], memory_capacity: memory, allocatable: allocatable.into() }
}

async fn register(
    client: berth_kube::Client,
    options: &Agent,
    config: &KubeletConfig,
    name: &str,
    ip: IpAddr,
    cri: &Cri,
    healthy: watch::Receiver<Health>,
) -> Result<berth_kube::Node> {
    if !config.register_node {
        bail!("registerNode: false is not supported yet: the node must register itself");
    }
    let version =
        cri.version(VersionRequest::default()).await.map_err(|status| anyhow::anyhow!("{}", status.message()))?;
    let node = NodeOptions {
        name: name.to_owned(),
        hostname: name.to_owned(),
        ips: vec![ip],
        port: config.port,
        version: VERSION.to_owned(),
        runtime_version: format!("{}://{}", version.runtime_name, version.runtime_version),
        max_pods: config.max_pods,
        taints: config.register_with_taints.clone(),
        root_dir: options.root_dir.clone(),
        update: config.node_status_update,
        report: config.node_status_report,
        lease: config.node_lease,
        ..NodeOptions::default()
    };
    Ok(berth_kube::register(client, node, healthy).await?)
}

async fn health_of(cri: &Cri) -> Health {
    let problem = match cri.status(StatusRequest::default()).await {
        Err(status) => Some(format!("container runtime is down: {}", status.message())),
        Ok(answer) => {
            let conditions = answer.status.unwrap_or_default().conditions;
            let unready: Vec<_> = conditions
                .iter()
                .filter(|condition| !condition.status)
                .map(|c| {
                    format!(
                        "container runtime network not ready: {} reason:{} message:{}",
                        c.r#type, c.reason, c.message
                    )
                })
                .collect();
            (!unready.is_empty()).then(|| unready.join("; "))
        }
    };
    Health { problem }
}

async fn keep_health(cri: Cri, sender: watch::Sender<Health>) {
    loop {
        let ready = sender.borrow().problem.is_none();
        tokio::time::sleep(if ready { HEALTH_READY } else { HEALTH }).await;
        let health = health_of(&cri).await;
        sender.send_if_modified(|known| {
            let changed = *known != health;
            *known = health;
            changed
        });
        if sender.is_closed() {
            return;
        }
    }
}

/// Follows a folder of static pods for ever.
async fn static_pods(folder: Folder, pods: Arc<Pods>) {
    let (sender, mut snapshots) = mpsc::channel(1);
    let watch = tokio::spawn(folder.watch(sender));
    while let Some(snapshot) = snapshots.recv().await {
        for problem in &snapshot.problems {
            tracing::error!("static pod: {problem}");
        }
        let uids: Vec<String> = snapshot.pods.iter().filter_map(|pod| pod.metadata.uid.clone()).collect();
        for pod in snapshot.pods {
            pods.set(Source::Files, pod);
        }
        pods.synced(Source::Files, &uids);
    }
    if let Ok(Err(error)) = watch.await {
        tracing::error!(%error, "the static pods' folder can't be watched any more");
    }
}

/// Gives the node's pods a bridge network in the range that the cluster gives the node.
async fn pod_network(state: std::path::PathBuf, mut cidrs: watch::Receiver<Vec<String>>) {
    loop {
        let cidr = cidrs.borrow_and_update().first().cloned();
        if let Some(cidr) = cidr {
            match BridgeNetwork::new(&state, &cidr).and_then(|network| network.write()) {
                Ok(()) => tracing::info!(cidr, "pod network on a bridge of our own"),
                Err(error) => tracing::error!("pod network: {error:#}"),
            }
        }
        if cidrs.changed().await.is_err() {
            return;
        }
    }
}
