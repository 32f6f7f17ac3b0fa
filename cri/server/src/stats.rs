//! What cgroups have used, in the words of the CRI.

pub(crate) mod interfaces;
pub(crate) mod pod;

use berth_cgroup::{Cgroup, Cpu, Memory, Pressure, Stall, Window};
use berth_cri_proto::v1 as cri;

use crate::container::Container;
use crate::meter::Meter;
use crate::places::text;
use crate::runtime::Runtime;

/// One reading of a cgroup. What could not be read is `None`.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// Nanoseconds since the epoch.
    pub(crate) at: i64,
    pub(crate) cpu: Option<Cpu>,
    pub(crate) memory: Option<Memory>,
    pub(crate) pressure: Pressure,
}

impl Reading {
    pub(crate) fn of(cgroup: &Cgroup) -> Self {
        Self {
            at: berth_sys::process::now(),
            cpu: cgroup.cpu().ok().flatten(),
            memory: cgroup.memory().ok().flatten(),
            pressure: cgroup.pressure(),
        }
    }

    pub(crate) fn cpu_usage(&self, meter: &Meter) -> Option<cri::CpuUsage> {
        let cpu = self.cpu.as_ref()?;
        Some(cri::CpuUsage {
            timestamp: self.at,
            usage_core_nano_seconds: number(cpu.usage_ns),
            usage_nano_cores: meter.nano_cores(cpu.usage_ns).and_then(number),
            psi: self.pressure.cpu.map(psi),
        })
    }

    pub(crate) fn memory_usage(&self) -> Option<cri::MemoryUsage> {
        let memory = self.memory.as_ref()?;
        Some(cri::MemoryUsage {
            timestamp: self.at,
            working_set_bytes: number(memory.working_set),
            available_bytes: memory.limit.and_then(|limit| number(limit.saturating_sub(memory.working_set))),
            usage_bytes: number(memory.usage),
            rss_bytes: memory.rss.and_then(number),
            page_faults: memory.faults.and_then(|faults| number(faults.all)),
            major_page_faults: memory.faults.and_then(|faults| number(faults.major)),
            psi: self.pressure.memory.map(psi),
        })
    }

    fn swap_usage(&self) -> Option<cri::SwapUsage> {
        let memory = self.memory.as_ref()?;
        let used = memory.swap?;
        Some(cri::SwapUsage {
            timestamp: self.at,
            swap_available_bytes: memory.swap_limit.and_then(|limit| number(limit.saturating_sub(used))),
            swap_usage_bytes: number(used),
        })
    }

    pub(crate) fn io_usage(&self) -> Option<cri::IoUsage> {
        let stall = self.pressure.io?;
        Some(cri::IoUsage { timestamp: self.at, psi: Some(psi(stall)) })
    }
}

/// What a container uses. One that does not run has no more than its writable layer. Blocks.
pub(crate) fn container(runtime: &Runtime, container: &Container) -> cri::ContainerStats {
    let running = container.is_running();
    let cgroup = runtime.cgroups.open(&container.record.cgroup).ok().filter(|_| running);
    let reading = cgroup.as_ref().map(Reading::of).unwrap_or_default();
    let config = container.config();
    cri::ContainerStats {
        attributes: Some(cri::ContainerAttributes {
            id: container.id.clone(),
            metadata: config.metadata.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        }),
        cpu: reading.cpu_usage(&container.meter),
        memory: reading.memory_usage(),
        writable_layer: writable_layer(runtime, container),
        swap: reading.swap_usage(),
        io: reading.io_usage(),
    }
}

fn writable_layer(runtime: &Runtime, container: &Container) -> Option<cri::FilesystemUsage> {
    let layer = container.layer(runtime)?;
    Some(cri::FilesystemUsage {
        timestamp: layer.at,
        fs_id: Some(cri::FilesystemIdentifier { mountpoint: text(&runtime.places.containers()) }),
        used_bytes: number(layer.usage.bytes),
        inodes_used: number(layer.usage.inodes),
    })
}

#[expect(clippy::unnecessary_wraps, reason = "the messages' fields are optional")]
pub(crate) fn number(value: u64) -> Option<cri::UInt64Value> {
    Some(cri::UInt64Value { value })
}

fn psi(stall: Stall) -> cri::PsiStats {
    cri::PsiStats { full: stall.full.map(window), some: Some(window(stall.some)) }
}

fn window(window: Window) -> cri::PsiData {
    cri::PsiData { total: window.total_ns, avg10: window.avg10, avg60: window.avg60, avg300: window.avg300 }
}
