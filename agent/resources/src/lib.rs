//! Pod and QoS cgroups of the node agent.
//!
//! Laid out as the kubelet does with the cgroupfs driver: `/kubepods` for Guaranteed pods, `/kubepods/burstable` and
//! `/kubepods/besteffort` for the others, in each one `podUID`. The runtime puts a pod's containers below its cgroup.
//! The numbers are decided by `berth_agent_core::resources`; source of the layout:
//! `kubernetes@v1.37.2:pkg/kubelet/cm/{qos,pod}_container_manager_linux.go`.
//!
//! Calls block for the time of some file writes; [`Cgroups::remove`] may wait for dying processes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use berth_agent_core::qos::{self, Class};
use berth_agent_core::resources::{self, Limits, Policy};
use berth_agent_core::{names, quantity};
use berth_cgroup::{CgroupError, Host, Resources};
use k8s_openapi::api::core::v1::Pod;

/// The cgroups of this node's pods.
#[derive(Debug)]
pub struct Cgroups {
    host: Host,
    root: String,
    /// By UID: CPU requests of Burstable pods, thousandths. Their class' shares are the sum.
    burstable: Mutex<BTreeMap<String, i64>>,
}

impl Cgroups {
    /// Makes the root and the QoS cgroups below `root` (`/kubepods`). What exists is kept.
    ///
    /// # Errors
    /// The machine has no cgroups, or refuses these.
    pub fn open(root: &str) -> Result<Self, CgroupError> {
        let host = Host::detect()?;
        for class in [Class::Guaranteed, Class::Burstable, Class::BestEffort] {
            // Until pods come, a class weighs nothing; the root is left as it is, and so is a class with the pods of the
            // agent before this one.
            let path = resources::qos_path(root, class);
            let fresh = class != Class::Guaranteed && !host.open(&path)?.exists();
            let shares = fresh.then(|| resources::shares(0));
            host.create(&path, &Resources { cpu_shares: shares, ..Resources::default() })?;
        }
        Ok(Self { host, root: root.to_owned(), burstable: Mutex::new(BTreeMap::new()) })
    }

    /// The path of a pod's cgroup, for the runtime's `cgroup_parent`.
    pub fn path(&self, pod: &Pod) -> String {
        resources::cgroup_path(&self.root, class(pod), names::uid(pod))
    }

    /// Makes the pod's cgroup, or brings its limits up to date.
    ///
    /// # Errors
    /// What the kernel refused, with the file.
    pub fn create(&self, pod: &Pod, policy: &Policy) -> Result<(), CgroupError> {
        let Some(spec) = &pod.spec else { return Ok(()) };
        self.host.create(&self.path(pod), &written(&resources::pod_limits(spec, policy)))?;
        if class(pod) == Class::Burstable {
            let request = resources::pod_request(spec, "cpu");
            self.weigh(|burstable| burstable.insert(names::uid(pod).to_owned(), request) != Some(request))?;
        }
        Ok(())
    }

    /// Removes the pod's cgroup with all below; one that is not there is fine. Whatever still runs in it is killed.
    ///
    /// # Errors
    /// Processes that don't die, or what the kernel refused.
    pub fn remove(&self, pod: &Pod) -> Result<(), CgroupError> {
        self.remove_path(&self.path(pod))?;
        self.weigh(|burstable| burstable.remove(names::uid(pod)).is_some())
    }

    /// As [`Cgroups::remove`], for a pod of which only the UID is known.
    ///
    /// # Errors
    /// As there.
    pub fn remove_uid(&self, uid: &str) -> Result<(), CgroupError> {
        for class in [Class::Guaranteed, Class::Burstable, Class::BestEffort] {
            self.remove_path(&resources::cgroup_path(&self.root, class, uid))?;
        }
        self.weigh(|burstable| burstable.remove(uid).is_some())
    }

    /// Removes the QoS and root cgroups, and those above the root, where nothing is left in them: standalone and a node
    /// that leaves its cluster leave nothing behind.
    pub fn close(&self) {
        let classes = [Class::Burstable, Class::BestEffort, Class::Guaranteed];
        let classes = classes.map(|class| resources::qos_path(&self.root, class));
        let above = Path::new(&self.root).ancestors().skip(1).filter(|above| above.parent().is_some());
        let above = above.map(|above| above.display().to_string());
        for path in classes.into_iter().chain(above) {
            if let Ok(cgroup) = self.host.open(&path) {
                cgroup.remove_if_empty();
            }
        }
    }

    fn remove_path(&self, path: &str) -> Result<(), CgroupError> {
        let cgroup = self.host.open(path)?;
        if !cgroup.exists() {
            return Ok(());
        }
        if !cgroup.procs().is_empty() {
            tracing::warn!(cgroup = path, "processes are left in a cgroup that is removed: killing them");
            cgroup.kill()?;
        }
        cgroup.remove()
    }

    /// Changes the book of Burstable pods, and their class' shares if that changed the sum.
    fn weigh(&self, change: impl FnOnce(&mut BTreeMap<String, i64>) -> bool) -> Result<(), CgroupError> {
        let mut burstable = self.burstable.lock().unwrap_or_else(PoisonError::into_inner);
        if !change(&mut burstable) {
            return Ok(());
        }
        let sum = burstable.values().fold(0i64, |sum, request| sum.saturating_add(*request));
        let path = resources::qos_path(&self.root, Class::Burstable);
        self.host.open(&path)?.apply(&Resources { cpu_shares: Some(resources::shares(sum)), ..Resources::default() })
    }
}

fn class(pod: &Pod) -> Class {
    pod.spec.as_ref().map_or(Class::BestEffort, qos::class)
}

/// Limits as cri/cgroup takes them.
fn written(limits: &Limits) -> Resources {
    Resources {
        cpu_shares: limits.cpu_shares,
        // 0 is "leave it" to the core, and no value for the kernel.
        cpu_quota: limits.cpu_quota.filter(|quota| *quota != 0),
        cpu_period: limits.cpu_period,
        memory_limit: limits.memory,
        pids_limit: limits.pids,
        hugepage_limits: limits.hugepages.clone(),
        ..Resources::default()
    }
}

/// Bytes of memory of this machine, from `/proc/meminfo`'s text; 0 when it doesn't say.
pub fn memory_capacity(meminfo: &str) -> i64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")).and_then(|text| quantity::value(text.trim()));
    kib.map_or(0, |kib| kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "json! values read better by value")]
    fn pod(uid: &str, resources: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "uid": uid},
            "spec": {"containers": [{"name": "c", "resources": resources}]}}))
        .expect("a pod")
    }

    /// A file of one controller, wherever this machine has it.
    fn read(path: &str, v1: (&str, &str), v2: &str) -> Option<String> {
        let one = PathBuf::from("/sys/fs/cgroup").join(v1.0).join(&path[1..]).join(v1.1);
        let two = PathBuf::from("/sys/fs/cgroup").join(&path[1..]).join(v2);
        std::fs::read_to_string(one).or_else(|_| std::fs::read_to_string(two)).ok().map(|text| text.trim().to_owned())
    }

    #[test]
    fn pods_come_and_go() {
        let above = format!("/berth-test-resources-{}", std::process::id());
        let root = format!("{above}/kubepods");
        let cgroups = Cgroups::open(&root).expect("root access to cgroups");
        let policy = Policy { pids: Some(100), ..Policy::default() };
        let burstable = pod("u1", json!({"requests": {"cpu": "250m"}, "limits": {"cpu": "500m", "memory": "64Mi"}}));
        let best_effort = pod("u2", json!({}));
        assert_eq!(cgroups.path(&burstable), format!("{root}/burstable/podu1"));
        for _ in 0..2 {
            cgroups.create(&burstable, &policy).expect("create");
        }
        cgroups.create(&best_effort, &policy).expect("create");
        let memory = read(&cgroups.path(&burstable), ("memory", "memory.limit_in_bytes"), "memory.max");
        assert_eq!(memory.as_deref(), Some("67108864"));
        let pids = read(&cgroups.path(&best_effort), ("pids", "pids.max"), "pids.max");
        assert_eq!(pids.as_deref(), Some("100"));
        let shares = |expected: u64| {
            let class = format!("{root}/burstable");
            match read(&class, ("cpu", "cpu.shares"), "cpu.weight") {
                Some(text) if PathBuf::from("/sys/fs/cgroup/cpu").exists() => assert_eq!(text, expected.to_string()),
                other => assert!(other.is_some()),
            }
        };
        shares(256);
        Cgroups::open(&root).expect("the agent's next start");
        shares(256);
        cgroups.remove(&burstable).expect("remove");
        shares(2);
        cgroups.remove(&burstable).expect("removing again is fine");
        cgroups.remove_uid("u2").expect("remove by UID");
        cgroups.close();
        for path in [root, above] {
            assert!(!cgroups.host.open(&path).expect("a path").exists(), "{path} is left");
        }
    }

    #[test]
    fn memory_is_read_from_meminfo() {
        assert_eq!(memory_capacity("MemTotal:        2048 kB\nMemFree: 1 kB\n"), 2 << 20);
        assert_eq!(memory_capacity(""), 0);
    }
}
