//! The Node: registered once, then kept.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node as NodeObject, NodeFeatures, NodeRuntimeHandler, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Error};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::connect::Cluster;
use crate::{Machine, lease, status};

/// How the node presents itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeOptions {
    /// Its name in the cluster.
    pub name: String,
    /// Its `Hostname` address.
    pub hostname: String,
    /// Its `InternalIP` addresses, the primary first.
    pub ips: Vec<IpAddr>,
    /// Where the agent's HTTPS API listens.
    pub port: u16,
    /// `status.nodeInfo.kubeletVersion`.
    pub version: String,
    /// `status.nodeInfo.containerRuntimeVersion`, `NAME://VERSION`.
    pub runtime_version: String,
    /// How many pods it takes.
    pub max_pods: u32,
    /// Labels beside those that say hostname, system and architecture.
    pub labels: BTreeMap<String, String>,
    /// Taints to register with.
    pub taints: Vec<Taint>,
    /// `spec.providerID` to register with.
    pub provider_id: Option<String>,
    /// Whether somebody else makes the Node (`registerNode: false`): it is waited for, then kept all the same.
    pub unregistered: bool,
    /// A path on the file system that holds the pods' folders.
    pub root_dir: PathBuf,
    /// How often the status is computed; 10 s when zero.
    pub update: Duration,
    /// How often it is written when nothing changed; 5 min when zero.
    pub report: Duration,
    /// How long the lease is good; 40 s when zero.
    pub lease: Duration,
}

/// What the runtime says: whether the node can take pods, and which.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Health {
    /// What keeps it from it, for people: the runtime's or the network's own words.
    pub problem: Option<String>,
    /// `status.runtimeHandlers`.
    pub handlers: Vec<NodeRuntimeHandler>,
    /// `status.features`; `None` where the runtime does not say.
    pub features: Option<NodeFeatures>,
}

/// Why the node could not be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The API server refused.
    #[error("node {name:?} can't be registered: {reason}")]
    Refused {
        /// The node's name.
        name: String,
        /// The API server's words.
        reason: String,
    },
}

/// A registered node.
#[derive(Debug)]
pub struct Node {
    client: Cluster,
    options: NodeOptions,
    health: watch::Receiver<Health>,
    object: NodeObject,
    pod_cidrs: watch::Sender<Vec<String>>,
}

/// Creates the Node, or takes over the one of this name. Waits, with back-off, for an API server that is away.
///
/// # Errors
/// A refusal that waiting does not heal.
pub async fn register(
    client: Client,
    mut options: NodeOptions,
    health: watch::Receiver<Health>,
) -> Result<Node, RegisterError> {
    let or = |value: &mut Duration, default: Duration| {
        if value.is_zero() {
            *value = default;
        }
    };
    or(&mut options.update, Duration::from_secs(10));
    or(&mut options.report, Duration::from_mins(5));
    or(&mut options.lease, Duration::from_secs(40));
    let api = Api::all(client.clone());
    let mut pause = Duration::from_millis(100);
    if options.unregistered {
        tracing::info!(node = %options.name, "registerNode is false: waiting for somebody to make the node");
    }
    loop {
        let now = health.borrow().clone();
        match create_or_adopt(&api, &options, &now).await {
            Ok(object) => {
                let pod_cidrs = watch::Sender::new(cidrs(&object));
                return Ok(Node { client: Cluster(client), options, health, object, pod_cidrs });
            }
            Err(Error::Api(answer)) if matches!(answer.code, 400 | 401 | 403 | 422) => {
                return Err(RegisterError::Refused { name: options.name, reason: answer.message });
            }
            Err(error) => {
                if options.unregistered && matches!(&error, Error::Api(answer) if answer.code == 404) {
                    tracing::debug!(node = %options.name, "nobody has made the node yet");
                } else {
                    tracing::warn!(node = %options.name, %error, "the node can't be registered yet");
                }
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(7));
            }
        }
    }
}

async fn create_or_adopt(api: &Api<NodeObject>, options: &NodeOptions, health: &Health) -> Result<NodeObject, Error> {
    let machine = Machine::read(&options.root_dir);
    let object = if options.unregistered {
        api.get(&options.name).await?
    } else {
        let new = status::node(options, &machine, health, &now());
        match api.create(&PostParams::default(), &new).await {
            Err(Error::Api(answer)) if answer.code == 409 => {}
            created => return created,
        }
        let labels = json!({"metadata": {"labels": status::labels(options, &machine)}});
        api.patch(&options.name, &PatchParams::default(), &Patch::Merge(labels)).await?
    };
    let before = object.status.clone().unwrap_or_default().conditions.unwrap_or_default();
    let status = status::status(options, &machine, health, &before, &now());
    api.patch_status(&options.name, &PatchParams::default(), &Patch::Strategic(status::patch(&status))).await
}

impl Node {
    /// The pod networks that the cluster gave this node (`spec.podCIDRs`); empty until it does.
    pub fn pod_cidrs(&self) -> watch::Receiver<Vec<String>> {
        self.pod_cidrs.subscribe()
    }

    /// The Node's UID.
    pub fn uid(&self) -> &str {
        self.object.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Keeps status, lease and the view of the node's own object; never returns.
    pub async fn run(self) -> Infallible {
        let Self { client: Cluster(client), options, health, object, pod_cidrs } = self;
        let api: Api<NodeObject> = Api::all(client.clone());
        let uid = object.metadata.uid.clone().unwrap_or_default();
        tokio::join!(
            keep_status(&api, &options, health, object.status.unwrap_or_default()),
            lease::keep(client.clone(), &options.name, uid, options.lease),
            watch_self(&api, &options.name, &pod_cidrs),
        )
        .0
    }
}

async fn keep_status(
    api: &Api<NodeObject>,
    options: &NodeOptions,
    mut health: watch::Receiver<Health>,
    mut written: NodeStatus,
) -> Infallible {
    let mut written_at = Instant::now();
    loop {
        let current = health.borrow_and_update().clone();
        let before = written.conditions.clone().unwrap_or_default();
        let machine = Machine::read(&options.root_dir);
        let next = status::status(options, &machine, &current, &before, &now());
        let mut pause = options.update;
        if !status::is_same(&next, &ours(&written)) || written_at.elapsed() >= options.report {
            let patch = Patch::Strategic(status::patch(&next));
            match api.patch_status(&options.name, &PatchParams::default(), &patch).await {
                Ok(object) => {
                    written = object.status.unwrap_or(next);
                    written_at = Instant::now();
                }
                Err(Error::Api(answer)) if answer.code == 404 => {
                    tracing::warn!(node = %options.name, "the node was deleted: registering it again");
                    match create_or_adopt(api, options, &current).await {
                        Ok(object) => written = object.status.unwrap_or(next),
                        Err(error) => tracing::warn!(node = %options.name, %error, "the node can't be registered yet"),
                    }
                }
                Err(error) => {
                    tracing::warn!(node = %options.name, %error, "the node's status can't be written yet");
                    pause = pause.min(Duration::from_secs(2));
                }
            }
        }
        tokio::select! {
            () = sleep(pause) => {}
            changed = health.changed() => if changed.is_err() {
                sleep(pause).await;
            }
        }
    }
}

/// The part of a status that this agent writes.
fn ours(status: &NodeStatus) -> NodeStatus {
    let names = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];
    let of = |type_: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == type_).cloned();
    NodeStatus {
        addresses: status.addresses.clone(),
        capacity: status.capacity.clone(),
        allocatable: status.allocatable.clone(),
        conditions: Some(names.into_iter().filter_map(of).collect()),
        daemon_endpoints: status.daemon_endpoints.clone(),
        node_info: status.node_info.clone(),
        runtime_handlers: status.runtime_handlers.clone(),
        features: status.features.clone(),
        ..NodeStatus::default()
    }
}

async fn watch_self(api: &Api<NodeObject>, name: &str, pod_cidrs: &watch::Sender<Vec<String>>) -> Infallible {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(api.clone(), config).default_backoff().boxed();
    loop {
        match events.try_next().await {
            Ok(Some(watcher::Event::Apply(node) | watcher::Event::InitApply(node))) => {
                let new = cidrs(&node);
                pod_cidrs.send_if_modified(|old| {
                    let changed = *old != new;
                    *old = new;
                    changed
                });
            }
            Ok(Some(_)) => {}
            Ok(None) => sleep(Duration::from_secs(1)).await,
            Err(error) => tracing::debug!(node = %name, %error, "the watch of the node broke; it is made again"),
        }
    }
}

fn cidrs(node: &NodeObject) -> Vec<String> {
    let Some(spec) = &node.spec else { return Vec::new() };
    match (&spec.pod_cidrs, &spec.pod_cidr) {
        (Some(cidrs), _) if !cidrs.is_empty() => cidrs.clone(),
        (_, Some(cidr)) if !cidr.is_empty() => vec![cidr.clone()],
        _ => Vec::new(),
    }
}

/// The present, to the nanosecond.
pub(crate) fn timestamp() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanosecond(i128::try_from(now.as_nanos()).unwrap_or(0)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Whole seconds, as the API writes times.
pub(crate) fn now() -> Time {
    let now = timestamp();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}
