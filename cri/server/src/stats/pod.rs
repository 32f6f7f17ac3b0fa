//! What a pod uses.

use std::collections::HashMap;
use std::sync::Arc;

use berth_cgroup::{Cgroup, Cpu, Memory};
use berth_cri_proto::v1 as cri;

use super::interfaces::{self, Interface};
use super::{Reading, container, number};
use crate::container::Container;
use crate::network::INTERFACE;
use crate::runtime::Runtime;
use crate::sandbox::Sandbox;

/// A sandbox with what it holds, looked up for many sandboxes at once.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) sandbox: Arc<Sandbox>,
    /// Those that run.
    pub(crate) containers: Vec<Arc<Container>>,
    /// Whether no other sandbox has its containers in the same cgroup.
    sole: bool,
}

impl Runtime {
    /// The pods of `sandboxes`, whose containers' layers are being measured from now on. The lock is held for the lists alone.
    pub(crate) fn pods(&self, sandboxes: Vec<Arc<Sandbox>>) -> Vec<Pod> {
        let all = self.sandboxes();
        let mut parents = HashMap::<&str, usize>::new();
        for sandbox in &all {
            *parents.entry(&sandbox.plan.cgroup_parent).or_default() += 1;
        }
        let mut containers = HashMap::<String, Vec<Arc<Container>>>::new();
        for container in self.containers().into_iter().filter(|container| container.is_running()) {
            containers.entry(container.sandbox.clone()).or_default().push(container);
        }
        let pod = |sandbox: Arc<Sandbox>| Pod {
            containers: containers.remove(&sandbox.id).unwrap_or_default(),
            sole: parents.get(sandbox.plan.cgroup_parent.as_str()).is_none_or(|users| *users <= 1),
            sandbox,
        };
        let pods: Vec<Pod> = sandboxes.into_iter().map(pod).collect();
        pods.iter().flat_map(|pod| &pod.containers).for_each(|container| container.measure(self));
        pods
    }
}

impl Pod {
    /// The cgroup of this pod alone.
    pub(crate) fn cgroup(&self, runtime: &Runtime) -> Option<Cgroup> {
        let cgroup = runtime.cgroups.open(&self.sandbox.plan.cgroup_parent).ok()?;
        (self.sole && cgroup.exists()).then_some(cgroup)
    }

    /// Blocks.
    pub(crate) fn stats(&self, runtime: &Runtime) -> cri::PodSandboxStats {
        let cgroup = self.cgroup(runtime);
        let reading = match &cgroup {
            Some(cgroup) => Reading::of(cgroup),
            None => self.sum(runtime),
        };
        let processes = match &cgroup {
            Some(cgroup) => cgroup.members().len(),
            None => self.cgroups(runtime).map(|cgroup| cgroup.members().len()).sum(),
        };
        let config = &self.sandbox.config;
        cri::PodSandboxStats {
            attributes: Some(cri::PodSandboxAttributes {
                id: self.sandbox.id.clone(),
                metadata: config.metadata.clone(),
                labels: config.labels.clone(),
                annotations: config.annotations.clone(),
            }),
            linux: Some(cri::LinuxPodSandboxStats {
                cpu: reading.cpu_usage(&self.sandbox.meter),
                memory: reading.memory_usage(),
                network: interfaces::of(&self.sandbox).map(|interfaces| network(&interfaces)),
                process: Some(cri::ProcessUsage {
                    timestamp: berth_sys::process::now(),
                    process_count: number(u64::try_from(processes).unwrap_or(u64::MAX)),
                }),
                containers: self.containers.iter().map(|one| container(runtime, one)).collect(),
                io: reading.io_usage(),
            }),
            windows: None,
        }
    }

    fn cgroups(&self, runtime: &Runtime) -> impl Iterator<Item = Cgroup> {
        self.containers.iter().filter_map(|container| runtime.cgroups.open(&container.record.cgroup).ok())
    }

    /// Where the pod has no cgroup of its own, what its containers use; pressure does not add up.
    fn sum(&self, runtime: &Runtime) -> Reading {
        let mut sum = Reading { at: berth_sys::process::now(), ..Reading::default() };
        for cgroup in self.cgroups(runtime) {
            if let Ok(Some(cpu)) = cgroup.cpu() {
                sum.cpu.get_or_insert_with(Cpu::default).usage_ns += cpu.usage_ns;
            }
            if let Ok(Some(memory)) = cgroup.memory() {
                let total = sum.memory.get_or_insert_with(|| Memory { rss: Some(0), ..Memory::default() });
                total.usage += memory.usage;
                total.working_set += memory.working_set;
                total.rss = total.rss.zip(memory.rss).map(|(sum, one)| sum + one);
            }
        }
        sum
    }
}

fn network(interfaces: &[Interface]) -> cri::NetworkUsage {
    let usage = |interface: &Interface| cri::NetworkInterfaceUsage {
        name: interface.name.clone(),
        rx_bytes: number(interface.received.bytes),
        rx_errors: number(interface.received.errors),
        tx_bytes: number(interface.sent.bytes),
        tx_errors: number(interface.sent.errors),
    };
    let (default, others): (Vec<_>, Vec<_>) =
        interfaces.iter().map(usage).partition(|interface| interface.name == INTERFACE);
    cri::NetworkUsage {
        timestamp: berth_sys::process::now(),
        default_interface: default.into_iter().next(),
        interfaces: others,
    }
}
