//! ContainerStats: what one container uses.

use std::sync::Arc;

use berth_cri_proto::v1 as cri;
use tonic::Status;

use crate::container::Container;
use crate::places::text;
use crate::runtime::Runtime;
use crate::tasks::blocking;

pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: cri::ContainerStatsRequest,
) -> Result<cri::ContainerStatsResponse, Status> {
    let container = runtime.container(&request.container_id)?;
    let work = Arc::clone(runtime);
    let stats = blocking(move || of(&work, &container)).await?;
    Ok(cri::ContainerStatsResponse { stats: Some(stats) })
}

/// What can be read; a container that does not run uses no CPU and no memory.
pub(super) fn of(runtime: &Runtime, container: &Container) -> cri::ContainerStats {
    let timestamp = berth_sys::process::now();
    let number = |value: u64| Some(cri::UInt64Value { value });
    let cgroup = runtime.cgroups.open(&container.record.cgroup).ok().filter(|_| container.is_running());
    let cpu = cgroup.as_ref().and_then(|cgroup| cgroup.cpu_usage_ns().ok());
    let memory = cgroup.as_ref().and_then(|cgroup| cgroup.memory_working_set().ok());
    let layer = runtime.images.snapshot_usage(&container.id).unwrap_or_default();
    let config = container.config();
    cri::ContainerStats {
        attributes: Some(cri::ContainerAttributes {
            id: container.id.clone(),
            metadata: config.metadata.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        }),
        cpu: Some(cri::CpuUsage {
            timestamp,
            usage_core_nano_seconds: number(cpu.unwrap_or(0)),
            ..cri::CpuUsage::default()
        }),
        memory: Some(cri::MemoryUsage {
            timestamp,
            working_set_bytes: number(memory.unwrap_or(0)),
            ..cri::MemoryUsage::default()
        }),
        writable_layer: Some(cri::FilesystemUsage {
            timestamp,
            fs_id: Some(cri::FilesystemIdentifier { mountpoint: text(&runtime.places.containers()) }),
            used_bytes: number(layer.bytes),
            inodes_used: number(layer.inodes),
        }),
        ..cri::ContainerStats::default()
    }
}
