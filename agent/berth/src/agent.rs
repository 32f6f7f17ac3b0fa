//! `berth agent`: wiring of a cluster's node.

mod clear;
mod configuration;
mod report;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use berth_api::{AlwaysAllow, Authorizer, Identity, Issued, Server, Settings};
use berth_cri::Service;
use berth_cri_proto::v1::{CgroupDriver, RuntimeConfigRequest, StatusRequest, VersionRequest};
use berth_kube::certificates::{CredentialOptions, Credentials, ServingCertificate};
use berth_kube::{AccessReview, Client, ClusterObjects, Health, NodeOptions, Tokens};
use berth_manifest::config::{self, Authorization, KubeletConfig};
use berth_manifest::folder::Folder;
use berth_pods::{Config, Cri, NodeFacts, Pods, Source};
use k8s_openapi::api::core::v1::{NodeFeatures, NodeRuntimeHandler, NodeRuntimeHandlerFeatures};
use tokio::sync::{mpsc, watch};

pub(crate) use self::clear::clear;
use self::configuration::Configuration;
use self::report::Sources;
use crate::cli::{Agent, PodNetwork};
use crate::kubelet::VERSION;
use crate::network::BridgeNetwork;
use crate::state::{self, AgentState};
use crate::{host, runtime};

/// How often the runtime is asked whether it and its network are ready. Nothing in the CRI tells of a change.
const HEALTH: Duration = Duration::from_secs(1);
const HEALTH_READY: Duration = Duration::from_secs(10);

/// How often a runtime behind a socket is listed to catch lost events.
const RELIST_REMOTE: Duration = Duration::from_secs(10);

/// Whether the files and flags of these options can be meant; nothing is started.
pub(crate) fn check(options: &Agent) -> Result<()> {
    configuration::load(options).map(drop)
}

pub(crate) async fn run(options: Agent) -> Result<()> {
    let configuration = configuration::load(&options)?;
    let (cri, service) = open_runtime(&options, &configuration.kubelet).await?;
    let begun = OnceLock::new();
    let outcome = tokio::select! {
        outcome = work(&options, &configuration, &cri, &begun) => outcome.map(|never| match never {}),
        outcome = runtime::asked_to_end() => outcome,
    };
    if let Some(pods) = begun.get() {
        Pods::close(pods).await;
    }
    if let Some(service) = service {
        service.close().await;
    }
    if let Err(error) = state::remove(&options.runtime.state) {
        tracing::warn!(%error, "the status file can't be removed");
    }
    outcome
}

/// Everything but opening and closing. `begun` gets the pods once there are some to close.
async fn work(
    options: &Agent,
    configuration: &Configuration,
    cri: &Cri,
    begun: &OnceLock<Arc<Pods>>,
) -> Result<Infallible> {
    let Configuration { kubelet: config, name, .. } = configuration;
    check_cgroup_driver(cri, config).await?;
    let version = cri.version(VersionRequest::default()).await;
    let version = version.map_err(|status| anyhow::anyhow!("{}", status.message()))?;
    let runtime = format!("{}://{}", version.runtime_name, version.runtime_version);
    let credentials = Credentials::open(CredentialOptions {
        kubeconfig: options.kubeconfig.clone(),
        bootstrap: options.bootstrap_kubeconfig.clone(),
        node: name.clone(),
        dir: options.cert_dir.clone(),
        rotate: config.rotate_certificates,
    })
    .await?;
    let (client, mut credible) = (credentials.client(), credentials.report());
    let serving = serving_certificate(options, configuration, &client)?;
    let (health, healthy) = watch::channel(health_of(cri, Health::default()).await);
    let registered = watch::Sender::new(false);
    let fixed = AgentState {
        version: VERSION.to_owned(),
        pid: std::process::id(),
        node: name.clone(),
        server: credentials.server(),
        kubeconfig: options.kubeconfig.clone(),
        runtime: runtime.clone(),
        ..AgentState::default()
    };
    let sources = Sources {
        client: credible.clone(),
        serving: serving.as_ref().map(ServingCertificate::report),
        health: healthy.clone(),
        registered: registered.subscribe(),
    };

    let publisher = Arc::new(berth_kube::Publisher::new(client.clone(), name));
    let objects = Arc::new(ClusterObjects::new(client.clone()));
    let pods = Pods::start(
        pods_config(options, config, name, cri),
        cri.clone(),
        objects.clone(),
        publisher,
        if config.static_pod_path.is_some() { &[Source::Api, Source::Files] } else { &[Source::Api] },
    )
    .await
    .context("starting the pod workers")?;
    let pods = begun.get_or_init(|| pods);
    pods.set_node(node_facts(&configuration.ips, config.max_pods));
    serve(options, configuration, &client, serving.as_ref(), pods).await?;
    if let Some(serving) = serving {
        let mut credible = credible.clone();
        tokio::spawn(async move {
            // Until somebody is there to ask, there is nothing to complain about.
            let _ = credible.wait_for(|report| report.usable).await;
            match serving.run().await {}
        });
    }
    if let Some(folder) = &config.static_pod_path {
        tokio::spawn(static_pods(folder.clone(), name.clone(), Arc::clone(pods)));
    }
    // kubeadm waits for this, and the agent no longer gives up by itself: the client certificate may take its time.
    if let Some((address, port)) = config.healthz {
        tokio::spawn(health_endpoint(SocketAddr::new(address, port)));
    }
    tokio::spawn(keep_health(cri.clone(), health));
    tokio::spawn(report::keep(options.runtime.state.clone(), fixed, sources));
    tokio::spawn(credentials.run());

    // Its sender lives as long as the task above.
    let _ = credible.wait_for(|report| report.usable).await;
    let node = node_options(options, configuration, runtime);
    let node = berth_kube::register(client.clone(), node, healthy).await?;
    registered.send_replace(true);
    if options.pod_network == PodNetwork::Bridge {
        tokio::spawn(pod_network(options.runtime.state.clone(), node.pod_cidrs()));
    }
    tokio::spawn(node.run());
    match berth_kube::watch_pods(client, name, Arc::clone(pods), objects).await {}
}

/// The certificate of the API, where the cluster is to issue it.
fn serving_certificate(
    options: &Agent,
    configuration: &Configuration,
    client: &Client,
) -> Result<Option<ServingCertificate>> {
    let Configuration { kubelet: config, name, .. } = configuration;
    if !config.server_tls_bootstrap || config.tls.is_some() {
        return Ok(None);
    }
    let names = names(configuration);
    Ok(Some(ServingCertificate::open(client.clone(), name, names, &options.cert_dir)?))
}

/// What clients call this node.
fn names(configuration: &Configuration) -> Vec<String> {
    let ips = configuration.ips.iter().map(ToString::to_string);
    std::iter::once(configuration.name.clone()).chain(ips).collect()
}

/// Binds the HTTPS API, before the node says where it listens.
async fn serve(
    options: &Agent,
    configuration: &Configuration,
    client: &Client,
    serving: Option<&ServingCertificate>,
    pods: &Arc<Pods>,
) -> Result<()> {
    let Configuration { kubelet: config, name, .. } = configuration;
    let authorizer: Arc<dyn Authorizer> = match config.authorization {
        Authorization::Webhook => Arc::new(AccessReview::new(client.clone(), name.clone())),
        Authorization::AlwaysAllow => Arc::new(AlwaysAllow),
    };
    let identity = match (&config.tls, serving) {
        (Some((certificate, key)), _) => Identity::Files { certificate: certificate.clone(), key: key.clone() },
        (None, Some(serving)) => Identity::Issued(issued(serving)),
        (None, None) => Identity::SelfSigned { dir: options.cert_dir.clone(), names: names(configuration) },
    };
    let settings = Settings {
        address: SocketAddr::new(config.address, config.port),
        identity,
        only_tls13: config.only_tls13,
        client_ca_file: config.client_ca_file.clone(),
        tokens: if config.token_review { Some(Arc::new(Tokens::new(client.clone()))) } else { None },
        anonymous: config.anonymous,
    };
    let server = Server::bind(&settings, pods.clone(), authorizer).await?;
    tokio::spawn(server.run());
    Ok(())
}

/// The issued certificate in the API's words.
fn issued(serving: &ServingCertificate) -> watch::Receiver<Option<Issued>> {
    let mut pairs = serving.pair();
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        loop {
            let pair = pairs.borrow_and_update().clone();
            sender.send_replace(
                pair.map(|pair| Issued { certificate: pair.certificate().to_owned(), key: pair.key().to_owned() }),
            );
            if pairs.changed().await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// The runtime says how it makes cgroups; the configuration's word is advice. Pods' cgroups are laid out for the cgroupfs
/// driver, which a runtime with the other one refuses.
async fn check_cgroup_driver(cri: &Cri, config: &KubeletConfig) -> Result<()> {
    let answer = match cri.runtime_config(RuntimeConfigRequest::default()).await {
        Ok(answer) => answer,
        Err(status) => {
            tracing::debug!(reason = status.message(), "the runtime does not say which cgroup driver it works with");
            return Ok(());
        }
    };
    let driver = answer.linux.and_then(|linux| CgroupDriver::try_from(linux.cgroup_driver).ok());
    match (driver, config.cgroup_driver) {
        (Some(CgroupDriver::Systemd), _) => bail!(
            "the container runtime makes cgroups through systemd, which this agent does not: switch the runtime to the \
             cgroupfs driver (containerd: SystemdCgroup = false), or leave --container-runtime-endpoint out"
        ),
        (Some(CgroupDriver::Cgroupfs), config::CgroupDriver::Systemd) => {
            tracing::info!(
                "cgroupDriver: systemd is advice only: the container runtime works with cgroupfs, which decides"
            );
        }
        _ => {}
    }
    Ok(())
}

/// Serves `/healthz` on loopback. That its address is taken is said, and keeps no pod from running.
async fn health_endpoint(address: SocketAddr) {
    let Err(error) = berth_api::healthz(address).await;
    tracing::error!(%error, "health endpoint");
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

fn node_facts(ips: &[IpAddr], max_pods: u32) -> NodeFacts {
    let memory = host::memory();
    let allocatable = [("cpu", host::cpus() * 1000), ("memory", memory), ("pods", i64::from(max_pods))]
        .map(|(k, v)| (k.to_owned(), v));
    let ips = ips.iter().map(ToString::to_string).collect();
    NodeFacts { ips, memory_capacity: memory, allocatable: allocatable.into() }
}

fn node_options(options: &Agent, configuration: &Configuration, runtime_version: String) -> NodeOptions {
    let Configuration { kubelet: config, name, ips, labels } = configuration;
    NodeOptions {
        name: name.clone(),
        hostname: name.clone(),
        ips: ips.clone(),
        port: config.port,
        version: VERSION.to_owned(),
        runtime_version,
        max_pods: config.max_pods,
        labels: labels.clone(),
        taints: config.register_with_taints.clone(),
        provider_id: config.provider_id.clone(),
        unregistered: !config.register_node,
        root_dir: options.root_dir.clone(),
        update: config.node_status_update,
        report: config.node_status_report,
        lease: config.node_lease,
    }
}

/// What a runtime that is down has said before still counts, its problem aside.
async fn health_of(cri: &Cri, before: Health) -> Health {
    let Health { mut handlers, mut features, .. } = before;
    let problem = match cri.status(StatusRequest::default()).await {
        Err(status) => Some(format!("container runtime is down: {}", status.message())),
        Ok(answer) => {
            handlers = answer.runtime_handlers.into_iter().map(handler).collect();
            features = answer
                .features
                .map(|features| NodeFeatures { supplemental_groups_policy: Some(features.supplemental_groups_policy) });
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
    Health { problem, handlers, features }
}

/// In the words of a Node's status (`kubernetes@v1.37.2:pkg/kubelet/nodestatus/setters.go#RuntimeHandlers`).
fn handler(handler: berth_cri_proto::v1::RuntimeHandler) -> NodeRuntimeHandler {
    let features = handler.features.unwrap_or_default();
    NodeRuntimeHandler {
        name: Some(handler.name),
        features: Some(NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(features.recursive_read_only_mounts),
            user_namespaces: Some(features.user_namespaces),
        }),
    }
}

async fn keep_health(cri: Cri, sender: watch::Sender<Health>) {
    loop {
        let ready = sender.borrow().problem.is_none();
        tokio::time::sleep(if ready { HEALTH_READY } else { HEALTH }).await;
        let known = sender.borrow().clone();
        let health = health_of(&cri, known).await;
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
async fn static_pods(path: PathBuf, name: String, pods: Arc<Pods>) {
    let (sender, mut snapshots) = mpsc::channel(1);
    let watch = tokio::spawn(Folder::new(&path, name).watch(sender));
    while let Some(snapshot) = snapshots.recv().await {
        for problem in &snapshot.problems {
            // kubeadm names a folder in every node's configuration, and makes it on control planes.
            if path.exists() {
                tracing::error!("static pod: {problem}");
            } else {
                tracing::info!("static pods: {problem}");
            }
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
async fn pod_network(state: PathBuf, mut cidrs: watch::Receiver<Vec<String>>) {
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
