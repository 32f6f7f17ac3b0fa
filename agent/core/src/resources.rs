//! Requests and limits as the kernel takes them.
//!
//! Sources: `kubernetes@v1.37.2:pkg/kubelet/cm/helpers_linux.go`, `pkg/kubelet/qos/policy.go`,
//! `pkg/kubelet/kuberuntime/kuberuntime_container_linux.go#calculateLinuxResources`, and for the sum over a pod
//! `component-helpers/resource/helpers.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::plan::is_sidecar;
use crate::qos::{self, Class};
use crate::quantity;

const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
/// Microseconds; the kernel takes no quota below.
const MIN_QUOTA: i64 = 1000;
/// Priority from which a pod is critical to its node (`system-cluster-critical`).
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// cgroup v1 CPU shares for so many thousandths of a CPU.
pub fn shares(milli: i64) -> u64 {
    let shares = u64::try_from(milli).unwrap_or(0).saturating_mul(1024) / 1000;
    shares.clamp(MIN_SHARES, MAX_SHARES)
}

/// CFS quota in microseconds for so many thousandths of a CPU; 0 is none.
pub fn quota(milli: i64, period: i64) -> i64 {
    if milli <= 0 { 0 } else { (milli.saturating_mul(period) / 1000).max(MIN_QUOTA) }
}

/// What the node decides about resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether CPU limits become quotas.
    pub cfs_quota: bool,
    /// Microseconds.
    pub cfs_period: i64,
    /// Most processes in a pod; `None` is no limit.
    pub pids: Option<i64>,
    /// Bytes of memory of the machine.
    pub memory_capacity: i64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { cfs_quota: true, cfs_period: 100_000, pids: None, memory_capacity: 0 }
    }
}

/// The limits of one cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// v1 shares.
    pub cpu_shares: Option<u64>,
    /// Microseconds a period; -1 is no limit, 0 leaves it.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Bytes.
    pub memory: Option<i64>,
    /// Processes.
    pub pids: Option<i64>,
    /// (page size as the kernel names it, bytes).
    pub hugepages: Vec<(String, u64)>,
}

/// One resource of a container: `cpu` in millicores, everything else in units.
pub fn amount(map: Option<&BTreeMap<String, Quantity>>, name: &str) -> i64 {
    let read = if name == "cpu" { quantity::milli } else { quantity::value };
    map.and_then(|map| map.get(name)).and_then(|quantity| read(&quantity.0)).unwrap_or(0).max(0)
}

fn request(resources: Option<&ResourceRequirements>, name: &str) -> i64 {
    let requests = resources.and_then(|r| r.requests.as_ref());
    if requests.is_some_and(|requests| requests.contains_key(name)) {
        amount(requests, name)
    } else {
        // The API server defaults a request to the limit; pods from files come without.
        amount(resources.and_then(|r| r.limits.as_ref()), name)
    }
}

fn limit(resources: Option<&ResourceRequirements>, name: &str) -> i64 {
    amount(resources.and_then(|r| r.limits.as_ref()), name)
}

/// What a pod asks for of one resource: its main containers and sidecars together, or its hungriest init container with
/// the sidecars before it, and overhead.
pub fn pod_request(spec: &PodSpec, name: &str) -> i64 {
    pod_sum(spec, name, request)
}

/// What a pod may use of one resource.
pub fn pod_limit(spec: &PodSpec, name: &str) -> i64 {
    let declared = pod_sum(spec, name, limit);
    if declared == amount(spec.overhead.as_ref(), name) { 0 } else { declared }
}

fn pod_sum(spec: &PodSpec, name: &str, of: fn(Option<&ResourceRequirements>, &str) -> i64) -> i64 {
    // Sidecars run beside whatever comes after them.
    let (mut sidecars, mut init) = (0_i64, 0_i64);
    for container in spec.init_containers.iter().flatten() {
        let own = of(container.resources.as_ref(), name);
        init = init.max(sidecars.saturating_add(own));
        if is_sidecar(container) {
            sidecars = sidecars.saturating_add(own);
        }
    }
    let main = spec.containers.iter().map(|c| of(c.resources.as_ref(), name)).fold(sidecars, i64::saturating_add);
    main.max(init).saturating_add(amount(spec.overhead.as_ref(), name))
}

/// The limits of a pod's cgroup.
pub fn pod_limits(spec: &PodSpec, policy: &Policy) -> Limits {
    let mut limits = Limits { pids: policy.pids, hugepages: hugepages(spec), ..Limits::default() };
    let class = qos::class(spec);
    if class == Class::BestEffort {
        limits.cpu_shares = Some(MIN_SHARES);
        return limits;
    }
    limits.cpu_shares = Some(shares(pod_request(spec, "cpu")));
    let all_declare = |name: &str| qos::containers(spec).all(|c| limit(c.resources.as_ref(), name) > 0);
    if class == Class::Guaranteed || all_declare("cpu") {
        let quota = quota(pod_limit(spec, "cpu"), policy.cfs_period);
        limits.cpu_quota = Some(if policy.cfs_quota { quota } else { -1 });
        limits.cpu_period = u64::try_from(policy.cfs_period).ok();
    }
    if class == Class::Guaranteed || all_declare("memory") {
        limits.memory = Some(pod_limit(spec, "memory"));
    }
    limits
}

/// The limits of one container.
pub fn container_limits(container: &Container, policy: &Policy) -> Limits {
    let resources = container.resources.as_ref();
    let memory = limit(resources, "memory");
    let mut limits = Limits {
        cpu_shares: Some(shares(request(resources, "cpu"))),
        memory: (memory > 0).then_some(memory),
        hugepages: hugepages_of(resources),
        ..Limits::default()
    };
    if policy.cfs_quota {
        limits.cpu_quota = Some(quota(limit(resources, "cpu"), policy.cfs_period));
        limits.cpu_period = u64::try_from(policy.cfs_period).ok();
    }
    limits
}

fn hugepages(spec: &PodSpec) -> Vec<(String, u64)> {
    let mut sizes: Vec<&str> = qos::containers(spec)
        .filter_map(|c| c.resources.as_ref()?.limits.as_ref())
        .flat_map(|limits| limits.keys().filter(|name| name.starts_with("hugepages-")))
        .map(String::as_str)
        .collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes.into_iter().filter_map(|name| Some((page_size(name)?, u64::try_from(pod_limit(spec, name)).ok()?))).collect()
}

fn hugepages_of(resources: Option<&ResourceRequirements>) -> Vec<(String, u64)> {
    let limits = resources.and_then(|r| r.limits.as_ref());
    limits
        .into_iter()
        .flatten()
        .filter_map(|(name, _)| Some((page_size(name)?, u64::try_from(amount(limits, name)).ok()?)))
        .collect()
}

/// `hugepages-2Mi` as the kernel's cgroup files name it: `2MB`.
fn page_size(resource: &str) -> Option<String> {
    let bytes = quantity::value(resource.strip_prefix("hugepages-")?)?;
    Some(match bytes {
        b if b >= 1 << 30 => format!("{}GB", b >> 30),
        b if b >= 1 << 20 => format!("{}MB", b >> 20),
        b => format!("{}KB", b >> 10),
    })
}

/// The out-of-memory score adjustment of a container's processes.
pub fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    const GUARANTEED: i64 = -997;
    const BEST_EFFORT: i64 = 1000;
    let Some(spec) = &pod.spec else { return BEST_EFFORT };
    if is_critical(pod) {
        return GUARANTEED;
    }
    match qos::class(spec) {
        Class::Guaranteed => GUARANTEED,
        Class::BestEffort => BEST_EFFORT,
        Class::Burstable => {
            let memory = |container: &Container| request(container.resources.as_ref(), "memory");
            let sidecar = spec.init_containers.iter().flatten().any(|c| c.name == container.name && is_sidecar(c));
            // A sidecar is worth as much as the least of those that it serves.
            let served = spec.containers.iter().map(memory).min().filter(|_| sidecar).unwrap_or(0);
            let share = i128::from(memory(container).max(served)) * 1000;
            let adjust = 1000 - share / i128::from(memory_capacity.max(1));
            // Between the guaranteed ones' own memory and the best-effort pods.
            i64::try_from(adjust.clamp(i128::from(1000 + GUARANTEED), i128::from(BEST_EFFORT - 1)))
                .unwrap_or(BEST_EFFORT - 1)
        }
    }
}

/// Whether the node needs this pod: static, or of a system priority.
pub fn is_critical(pod: &Pod) -> bool {
    let annotation = |name: &str| pod.metadata.annotations.as_ref().and_then(|map| map.get(name));
    annotation("kubernetes.io/config.source").is_some_and(|source| source != "api")
        || annotation("kubernetes.io/config.mirror").is_some()
        || pod.spec.as_ref().and_then(|spec| spec.priority).is_some_and(|priority| priority >= CRITICAL_PRIORITY)
}

/// The path of a pod's cgroup below `root` (`/kubepods`), cgroupfs style.
pub fn cgroup_path(root: &str, class: Class, uid: &str) -> String {
    match qos_path(root, class) {
        parent if parent == "/" => format!("/pod{uid}"),
        parent => format!("{parent}/pod{uid}"),
    }
}

/// The path of a class' cgroup: Guaranteed pods lie in the root itself.
pub fn qos_path(root: &str, class: Class) -> String {
    match class {
        Class::Guaranteed => root.to_owned(),
        Class::Burstable => format!("{root}/burstable"),
        Class::BestEffort => format!("{root}/besteffort"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "json! values read better by value")]
    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({"metadata": {"name": "p"}, "spec": spec})).expect("a pod")
    }

    fn with(resources: &serde_json::Value) -> serde_json::Value {
        serde_json::json!({"containers": [{"name": "c", "resources": resources}]})
    }

    #[test]
    fn shares_and_quota_have_the_kubelets_values() {
        for (milli, expected) in [(0, 2), (1, 2), (2, 2), (10, 10), (100, 102), (1000, 1024), (256_001, 262_144)] {
            assert_eq!(shares(milli), expected, "{milli}m");
        }
        for (milli, period, expected) in
            [(0, 100_000, 0), (5, 100_000, 1000), (200, 100_000, 20_000), (1500, 50_000, 75_000)]
        {
            assert_eq!(quota(milli, period), expected, "{milli}m");
        }
    }

    #[test]
    fn a_pods_limits_by_class() {
        let policy = Policy { pids: Some(64), ..Policy::default() };
        let both = serde_json::json!({"requests": {"cpu": "100m", "memory": "100Mi"}, "limits": {"cpu": "200m", "memory": "200Mi"}});
        let full = serde_json::json!({"limits": {"cpu": "200m", "memory": "200Mi"}});
        let some = serde_json::json!({"requests": {"cpu": "100m"}});
        let limits = |spec: serde_json::Value| pod_limits(pod(spec).spec.as_ref().expect("spec"), &policy);
        let mib200 = Some(200 << 20);
        let rows = [
            (with(&serde_json::json!({})), (Some(2), None, None, None)),
            (with(&some), (Some(102), None, None, None)),
            (with(&both), (Some(102), Some(20_000), Some(100_000), mib200)),
            (with(&full), (Some(204), Some(20_000), Some(100_000), mib200)),
        ];
        for (spec, expected) in rows {
            let found = limits(spec.clone());
            assert_eq!((found.cpu_shares, found.cpu_quota, found.cpu_period, found.memory), expected, "{spec}");
            assert_eq!(found.pids, Some(64));
        }
        let mixed = serde_json::json!({"containers": [{"name": "a", "resources": both}, {"name": "b"}]});
        let found = limits(mixed);
        assert_eq!((found.cpu_shares, found.cpu_quota, found.memory), (Some(102), None, None));
    }

    #[test]
    fn the_hungriest_init_container_counts() {
        let big = serde_json::json!({"requests": {"cpu": "500m", "memory": "1Gi"}});
        let small = serde_json::json!({"requests": {"cpu": "100m", "memory": "1Mi"}});
        let pod = pod(serde_json::json!({
            "initContainers": [{"name": "i", "resources": big}, {"name": "j", "resources": small}],
            "containers": [{"name": "a", "resources": small}, {"name": "b", "resources": small}],
            "overhead": {"cpu": "10m"}}));
        let spec = pod.spec.as_ref().expect("spec");
        assert_eq!((pod_request(spec, "cpu"), pod_request(spec, "memory")), (510, 1 << 30));
    }

    #[test]
    fn out_of_memory_scores() {
        let gib = 1i64 << 30;
        let capacity = 4 * gib;
        let adj = |pod: &Pod| oom_score_adj(pod, &pod.spec.as_ref().expect("spec").containers[0], capacity);
        let rows = [
            (serde_json::json!({}), 1000),
            (serde_json::json!({"limits": {"cpu": "1", "memory": "1Gi"}}), -997),
            (serde_json::json!({"requests": {"memory": "1Gi"}}), 750),
            (serde_json::json!({"requests": {"cpu": "1"}}), 999),
            (serde_json::json!({"requests": {"memory": "5Gi"}}), 3),
        ];
        for (resources, expected) in rows {
            assert_eq!(adj(&pod(with(&resources))), expected, "{resources}");
        }
        let mut critical = pod(with(&serde_json::json!({})));
        critical.spec.as_mut().expect("spec").priority = Some(2_000_001_000);
        assert_eq!(adj(&critical), -997);
    }

    #[test]
    fn sidecars_run_beside_the_others() {
        let container = |name: &str, memory: &str, policy: Option<&str>| serde_json::json!({"name": name, "restartPolicy": policy, "resources": {"requests": {"memory": memory}}});
        let spec = |init: Vec<serde_json::Value>, main: &str| -> Pod {
            serde_json::from_value(
                serde_json::json!({"spec": {"initContainers": init, "containers": [container("a", main, None)]}}),
            )
            .expect("a pod")
        };
        let sum = |pod: &Pod| pod_request(pod.spec.as_ref().expect("spec"), "memory");
        let always = Some("Always");
        assert_eq!(sum(&spec(vec![container("s", "10", always), container("i", "5", None)], "20")), 30);
        assert_eq!(sum(&spec(vec![container("s", "10", always), container("i", "50", None)], "20")), 60);
        assert_eq!(sum(&spec(vec![container("i", "50", None), container("s", "10", always)], "20")), 50);
        let pod = spec(vec![container("s", "1", always)], "1Gi");
        let init = &pod.spec.as_ref().expect("spec").init_containers.as_ref().expect("init")[0];
        assert_eq!(oom_score_adj(&pod, init, 4 << 30), 750);
    }

    #[test]
    fn cgroup_names() {
        assert_eq!(cgroup_path("/kubepods", Class::Guaranteed, "u-1"), "/kubepods/podu-1");
        assert_eq!(cgroup_path("/kubepods", Class::Burstable, "u-1"), "/kubepods/burstable/podu-1");
        assert_eq!(cgroup_path("/kubepods", Class::BestEffort, "u-1"), "/kubepods/besteffort/podu-1");
    }

    #[test]
    fn huge_pages_are_named_as_the_kernel_does() {
        let resources = serde_json::json!({"limits": {"hugepages-2Mi": "4Mi", "hugepages-1Gi": "1Gi", "cpu": "1"}});
        let pod = pod(with(&resources));
        let expected = vec![("1GB".to_owned(), 1 << 30), ("2MB".to_owned(), 4 << 20)];
        assert_eq!(pod_limits(pod.spec.as_ref().expect("spec"), &Policy::default()).hugepages, expected);
    }
}
