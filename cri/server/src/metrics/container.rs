//! The metrics of a container, and those that any cgroup has.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use berth_cgroup::{Cgroup, Cpu, Faults, Memory, Pressure, Stall};
use berth_cri_core::resources;
use berth_cri_core::state::ContainerState;
use berth_cri_proto::v1 as cri;

use super::{Values, descriptors as d, process};
use crate::container::Container;
use crate::runtime::Runtime;
use crate::stats::Reading;

const NANO: u64 = 1_000_000_000;

pub(super) fn of(runtime: &Runtime, container: &Container, pod: &cri::PodSandboxMetadata) -> cri::ContainerMetrics {
    let config = container.config();
    let image = config.image.clone().unwrap_or_default();
    let mut values = Values::new([
        container.record.cgroup.clone(),
        container.id.clone(),
        if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image },
        config.metadata.clone().unwrap_or_default().name,
        pod.name.clone(),
        pod.namespace.clone(),
    ]);
    if let ContainerState::Running { started_at, pid } = container.state() {
        if let Ok(cgroup) = runtime.cgroups.open(&container.record.cgroup) {
            usage(&mut values, &cgroup);
            processes(&mut values, &cgroup, pid);
        }
        values.put(&d::START_TIME, seconds(started_at));
    }
    files(&mut values, runtime, container);
    spec(&mut values, &container.limits());
    values.put(&d::LAST_SEEN, seconds(berth_sys::process::now()));
    cri::ContainerMetrics { container_id: container.id.clone(), metrics: values.metrics }
}

pub(super) fn seconds(nanoseconds: i64) -> Option<u64> {
    u64::try_from(nanoseconds).ok().map(|nanoseconds| nanoseconds / NANO)
}

/// What the files of a cgroup say.
pub(super) fn usage(values: &mut Values, cgroup: &Cgroup) {
    let Reading { cpu: time, memory: bytes, pressure: stalls, .. } = Reading::of(cgroup);
    if let Some(time) = time {
        cpu(values, &time);
    }
    if let Some(bytes) = bytes {
        memory(values, &bytes);
    }
    pressure(values, &stalls);
    values.put(&d::OOM_EVENTS, cgroup.oom_kills().ok());
    for device in cgroup.io() {
        let (major, minor) = (device.major.to_string(), device.minor.to_string());
        let name = block_device(device.major, device.minor);
        for (operation, bytes) in [("Read", device.read_bytes), ("Write", device.written_bytes)] {
            values.put_for(&d::IO_BYTES, [&name, &major, &minor, operation], bytes);
        }
        values.put_for(&d::FS_READ_BYTES, [&name], device.read_bytes);
        values.put_for(&d::FS_READS, [&name], device.reads);
        values.put_for(&d::FS_WRITE_BYTES, [&name], device.written_bytes);
        values.put_for(&d::FS_WRITES, [&name], device.writes);
    }
    for pages in cgroup.huge_pages() {
        values.put_for(&d::HUGE_USAGE, [&pages.size], pages.bytes);
        values.put_for(&d::HUGE_MAX, [&pages.size], pages.peak);
    }
}

fn cpu(values: &mut Values, cpu: &Cpu) {
    let seconds = |nanoseconds: Option<u64>| nanoseconds.map(|nanoseconds| nanoseconds / NANO);
    values.put_for(&d::CPU_USAGE, ["total"], seconds(Some(cpu.usage_ns)));
    values.put(&d::CPU_USER, seconds(cpu.user_ns));
    values.put(&d::CPU_SYSTEM, seconds(cpu.system_ns));
    values.put(&d::CPU_PERIODS, cpu.periods);
    values.put(&d::CPU_THROTTLED, cpu.throttled_periods);
    values.put(&d::CPU_THROTTLED_TIME, seconds(cpu.throttled_ns));
}

fn memory(values: &mut Values, memory: &Memory) {
    values.put(&d::MEMORY_USAGE, memory.usage);
    values.put(&d::MEMORY_WORKING_SET, memory.working_set);
    values.put(&d::MEMORY_RSS, memory.rss);
    values.put(&d::MEMORY_CACHE, memory.cache);
    values.put(&d::MEMORY_MAPPED, memory.mapped_file);
    values.put(&d::MEMORY_KERNEL, memory.kernel);
    values.put(&d::MEMORY_SWAP, memory.swap);
    values.put(&d::MEMORY_MAX, memory.peak);
    values.put(&d::MEMORY_LIMIT_HITS, memory.limit_hits);
    // v2 counts the hierarchy only; cAdvisor shows it in both scopes there.
    for (scope, faults) in [("container", memory.own_faults.or(memory.faults)), ("hierarchy", memory.faults)] {
        if let Some(Faults { all, major }) = faults {
            values.put_for(&d::MEMORY_FAULTS, ["pgfault", scope], all);
            values.put_for(&d::MEMORY_FAULTS, ["pgmajfault", scope], major);
        }
    }
}

fn pressure(values: &mut Values, pressure: &Pressure) {
    let some = |stall: Option<Stall>| stall.map(|stall| stall.some.total_ns / NANO);
    let full = |stall: Option<Stall>| stall.and_then(|stall| stall.full).map(|full| full.total_ns / NANO);
    values.put(&d::CPU_WAITING, some(pressure.cpu));
    values.put(&d::CPU_STALLED, full(pressure.cpu));
    values.put(&d::MEMORY_WAITING, some(pressure.memory));
    values.put(&d::MEMORY_STALLED, full(pressure.memory));
    values.put(&d::IO_WAITING, some(pressure.io));
    values.put(&d::IO_STALLED, full(pressure.io));
}

fn processes(values: &mut Values, cgroup: &Cgroup, first: i32) {
    let pids = cgroup.members();
    values.put(&d::PROCESSES, u64::try_from(pids.len()).ok());
    if let Some(tasks) = cgroup.tasks() {
        values.put(&d::THREADS, tasks.now);
        values.put(&d::THREADS_MAX, tasks.limit.unwrap_or(0));
    }
    if let Some(open) = process::descriptors(&pids) {
        values.put(&d::FILE_DESCRIPTORS, open.all);
        values.put(&d::SOCKETS, open.sockets);
    }
    values.put_for(&d::ULIMITS, ["max_open_files"], process::open_files_limit(first));
}

fn files(values: &mut Values, runtime: &Runtime, container: &Container) {
    let folder = runtime.places.containers();
    let Ok(data) = fs::metadata(&folder) else { return };
    let device = block_device(rustix::fs::major(data.dev()), rustix::fs::minor(data.dev()));
    values.put_for(&d::FS_USAGE, [&device], container.layer(runtime).map(|layer| layer.usage.bytes));
    let Ok(system) = rustix::fs::statvfs(&folder) else { return };
    values.put_for(&d::FS_LIMIT, [&device], system.f_blocks.saturating_mul(system.f_frsize));
    values.put_for(&d::FS_INODES_FREE, [&device], system.f_ffree);
    values.put_for(&d::FS_INODES_TOTAL, [&device], system.f_files);
}

/// `/dev/sda1`; its numbers where it is no device of the machine (btrfs, tmpfs).
fn block_device(major: u32, minor: u32) -> String {
    let numbers = format!("{major}:{minor}");
    let link = fs::read_link(Path::new("/sys/dev/block").join(&numbers)).ok();
    let name = link.as_deref().and_then(Path::file_name).map(|name| format!("/dev/{}", name.to_string_lossy()));
    name.unwrap_or(numbers)
}

/// What was asked for. What was not has no value, but for memory, where cAdvisor has 0 for "no limit".
fn spec(values: &mut Values, limits: &cri::LinuxContainerResources) {
    let asked = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    values.put(&d::SPEC_CPU_PERIOD, asked(limits.cpu_period));
    values.put(&d::SPEC_CPU_QUOTA, asked(limits.cpu_quota));
    values.put(&d::SPEC_CPU_SHARES, asked(limits.cpu_shares));
    values.put(&d::SPEC_MEMORY, asked(limits.memory_limit_in_bytes).unwrap_or(0));
    let kept = limits.unified.get("memory.min").map_or(Some(0), |text| text.trim().parse().ok());
    values.put(&d::SPEC_MEMORY_RESERVATION, kept);
    // With what a memory limit alone means for swap.
    let both = resources::from_cri(limits).ok().and_then(|limits| limits.memory_swap);
    values.put(&d::SPEC_MEMORY_SWAP, both.and_then(asked).unwrap_or(0));
}
