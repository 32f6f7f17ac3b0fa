//! What all workers share.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use berth_agent_core::dns::{self, Offer};
use berth_agent_core::resources::Policy;
use berth_agent_core::users::Users;
use berth_agent_core::{Moment, env, names, sandbox};
use berth_resources::Cgroups;
use berth_volumes::Objects;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Semaphore, watch};

use crate::{Config, Cri, Event, EventKind, NodeFacts, Publisher};

/// The largest host file (resolv.conf, hosts) that is read.
const FILE_LIMIT: u64 = 1 << 20;

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) cri: Cri,
    pub(crate) objects: Arc<dyn Objects>,
    pub(crate) publisher: Arc<dyn Publisher>,
    pub(crate) cgroups: Option<Cgroups>,
    pub(crate) node: watch::Sender<NodeFacts>,
    /// The runtime's name, which container ids begin with.
    pub(crate) runtime: String,
    pub(crate) pulls: Semaphore,
    /// Held while a pod's own ids are chosen.
    pub(crate) choosing_users: Mutex<()>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The wall clock, which CRI and the API count by.
pub(crate) fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// A file of the host; empty when it is not there.
pub(crate) fn read_host_file(path: &std::path::Path) -> String {
    use std::io::Read;
    let mut text = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(FILE_LIMIT).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

impl Shared {
    pub(crate) fn node(&self) -> NodeFacts {
        self.node.borrow().clone()
    }

    pub(crate) fn policy(&self) -> Policy {
        Policy {
            cfs_quota: self.config.cpu_cfs_quota,
            cfs_period: i64::try_from(self.config.cpu_cfs_period.as_micros()).unwrap_or(100_000),
            pids: self.config.pod_pids_limit,
            memory_capacity: self.node.borrow().memory_capacity,
        }
    }

    pub(crate) fn offer(&self) -> Offer {
        let host = self.config.resolv_conf.as_deref().map(read_host_file).unwrap_or_default();
        Offer {
            cluster_dns: self.config.cluster_dns.clone(),
            cluster_domain: self.config.cluster_domain.clone(),
            host: dns::parse(&host),
        }
    }

    pub(crate) fn sandbox_config(
        &self,
        pod: &Pod,
        attempt: u32,
        users: Option<Users>,
    ) -> Result<berth_cri_proto::v1::PodSandboxConfig, String> {
        let (offer, policy) = (self.offer(), self.policy());
        let cgroup_parent = self.cgroups.as_ref().map(|cgroups| cgroups.path(pod)).unwrap_or_default();
        let node =
            sandbox::Node { logs: &self.config.pod_logs_dir, cgroup_parent, dns: &offer, policy: &policy, users };
        sandbox::config(pod, attempt, &node)
    }

    pub(crate) fn env_facts(&self, pod_ips: Vec<String>) -> env::Facts {
        let node = self.node();
        env::Facts {
            node_name: self.config.node_name.clone(),
            host_ips: node.ips,
            pod_ips,
            allocatable: node.allocatable,
        }
    }

    pub(crate) fn volume_facts(&self) -> berth_volumes::Facts {
        let allocatable: BTreeMap<String, i64> = self.node.borrow().allocatable.clone();
        berth_volumes::Facts { node_name: self.config.node_name.clone(), allocatable }
    }

    /// `NAMESPACE_NAME_UID` below the log folder.
    pub(crate) fn log_folder(&self, pod: &Pod) -> PathBuf {
        let folder = names::log_folder(names::namespace(pod), names::name(pod), names::uid(pod));
        self.config.pod_logs_dir.join(folder)
    }

    /// Tells of something that happened to the pod, or to one container of it.
    pub(crate) fn event(
        &self,
        pod: &Pod,
        container: Option<&str>,
        kind: EventKind,
        reason: &'static str,
        message: String,
    ) {
        let field_path = container.map(|name| {
            let init = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_ref());
            let list = if init.into_iter().flatten().any(|c| c.name == name) { "initContainers" } else { "containers" };
            format!("spec.{list}{{{name}}}")
        });
        self.publisher.event(pod, Event { kind, reason, message, field_path });
    }
}
