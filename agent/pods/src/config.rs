//! What the pod workers are told once, at start.

use std::path::PathBuf;
use std::time::Duration;

/// Settings that hold for the whole run.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's name, for events and the downward API.
    pub node_name: String,
    /// Pods live under `root_dir/pods/UID` (the kubelet's `--root-dir`, `/var/lib/kubelet`).
    pub root_dir: PathBuf,
    /// Container logs: `pod_logs_dir/NAMESPACE_NAME_UID/CONTAINER/N.log` (`/var/log/pods`).
    pub pod_logs_dir: PathBuf,
    /// Flat symlinks to the logs for log shippers (`/var/log/containers`); `None` makes none.
    pub container_logs_dir: Option<PathBuf>,
    /// Servers for pods with `dnsPolicy: ClusterFirst`.
    pub cluster_dns: Vec<String>,
    /// The cluster's domain (`cluster.local`); empty is none.
    pub cluster_domain: String,
    /// The host's resolver file; `None` gives pods with `dnsPolicy: Default` no DNS.
    pub resolv_conf: Option<PathBuf>,
    /// Whether CPU limits become CFS quotas (`cpuCFSQuota`).
    pub cpu_cfs_quota: bool,
    /// The CFS period (`cpuCFSQuotaPeriod`).
    pub cpu_cfs_period: Duration,
    /// Most processes in a pod; `None` is no limit (`podPidsLimit: -1`).
    pub pod_pids_limit: Option<i64>,
    /// Sysctls allowed beside the safe ones; a trailing `*` matches a prefix (`allowedUnsafeSysctls`).
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Containers that declare no seccomp profile get RuntimeDefault (`seccompDefault`).
    pub seccomp_default: bool,
    /// The root of the pod cgroups, `/kubepods` in the kubelet's own layout; a test or a second agent on one machine
    /// takes another.
    pub cgroup_root: String,
    /// Whether to make pod and QoS cgroups at all (`cgroupsPerQOS`).
    pub cgroups_per_qos: bool,
    /// How often the runtime is listed to catch lost events.
    pub relist: Duration,
    /// Image pulls at once over all pods; `None` is no limit (`maxParallelImagePulls`).
    pub max_parallel_pulls: Option<usize>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_name: String::new(),
            root_dir: PathBuf::from("/var/lib/kubelet"),
            pod_logs_dir: PathBuf::from("/var/log/pods"),
            container_logs_dir: Some(PathBuf::from("/var/log/containers")),
            cluster_dns: Vec::new(),
            cluster_domain: String::from("cluster.local"),
            resolv_conf: Some(PathBuf::from("/etc/resolv.conf")),
            cpu_cfs_quota: true,
            cpu_cfs_period: Duration::from_millis(100),
            pod_pids_limit: None,
            allowed_unsafe_sysctls: Vec::new(),
            seccomp_default: false,
            cgroup_root: String::from("/kubepods"),
            cgroups_per_qos: true,
            relist: Duration::from_secs(60),
            max_parallel_pulls: None,
        }
    }
}

/// What the node knows of itself and may learn later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// The node's addresses, the primary first (`status.hostIPs` of its pods).
    pub ips: Vec<String>,
    /// Bytes of memory, for oom_score_adj.
    pub memory_capacity: i64,
    /// What a container without limits may use, for `resourceFieldRef`: `cpu` in millicores, the rest in bytes.
    pub allocatable: std::collections::BTreeMap<String, i64>,
}
