//! The metrics that there are.

use berth_cri_proto::v1 as cri;
use berth_cri_proto::v1::MetricType;

/// The labels of every metric, as the kubelet's cAdvisor has them: `id` is the cgroup, `name` the container's (or
/// sandbox's) id.
pub(super) const BASE: [&str; 6] = ["id", "name", "image", "container", "pod", "namespace"];

/// A metric with `N` labels besides.
#[derive(Debug)]
pub(super) struct Descriptor<const N: usize> {
    pub(super) name: &'static str,
    pub(super) kind: MetricType,
    help: &'static str,
    labels: [&'static str; N],
}

macro_rules! descriptors {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $id: Descriptor<{ <[&str]>::len(&[$($label),*]) }> =
            Descriptor { name: $name, kind: MetricType::$kind, help: $help, labels: [$($label),*] };)*

        /// As ListMetricDescriptors gives them.
        pub(crate) fn all() -> Vec<cri::MetricDescriptor> {
            vec![$($id.describe()),*]
        }
    };
}

impl<const N: usize> Descriptor<N> {
    fn describe(&self) -> cri::MetricDescriptor {
        cri::MetricDescriptor {
            name: self.name.to_owned(),
            help: self.help.to_owned(),
            label_keys: BASE.iter().chain(&self.labels).map(|key| (*key).to_owned()).collect(),
        }
    }
}

descriptors! {
    CPU_USAGE: Counter "container_cpu_usage_seconds_total" ["cpu"] "CPU time used, in seconds.";
    CPU_USER: Counter "container_cpu_user_seconds_total" [] "CPU time used in user mode, in seconds.";
    CPU_SYSTEM: Counter "container_cpu_system_seconds_total" [] "CPU time used in the kernel, in seconds.";
    CPU_PERIODS: Counter "container_cpu_cfs_periods_total" [] "Periods of the CPU quota that have passed.";
    CPU_THROTTLED: Counter "container_cpu_cfs_throttled_periods_total" [] "Periods in which the CPU quota was used up.";
    CPU_THROTTLED_TIME: Counter "container_cpu_cfs_throttled_seconds_total" [] "Time held back by the CPU quota, in seconds.";

    MEMORY_USAGE: Gauge "container_memory_usage_bytes" [] "Memory in use, page cache and kernel included, in bytes.";
    MEMORY_WORKING_SET: Gauge "container_memory_working_set_bytes" [] "Memory in use without inactive file pages, in bytes.";
    MEMORY_RSS: Gauge "container_memory_rss" [] "Anonymous memory, in bytes.";
    MEMORY_CACHE: Gauge "container_memory_cache" [] "Page cache, in bytes.";
    MEMORY_MAPPED: Gauge "container_memory_mapped_file" [] "Mapped files in memory, in bytes.";
    MEMORY_KERNEL: Gauge "container_memory_kernel_usage" [] "The kernel's memory for it, in bytes.";
    MEMORY_SWAP: Gauge "container_memory_swap" [] "Memory swapped out, in bytes.";
    MEMORY_MAX: Gauge "container_memory_max_usage_bytes" [] "The most memory in use so far, in bytes.";
    MEMORY_LIMIT_HITS: Counter "container_memory_failcnt" [] "How often the memory limit was hit.";
    MEMORY_FAULTS: Counter "container_memory_failures_total" ["failure_type", "scope"] "Page faults, all and major, of the cgroup and of the hierarchy below it.";
    OOM_EVENTS: Counter "container_oom_events_total" [] "Processes that the kernel killed for memory.";

    IO_BYTES: Counter "container_blkio_device_usage_total" ["device", "major", "minor", "operation"] "Bytes moved to and from a block device.";
    FS_READ_BYTES: Counter "container_fs_reads_bytes_total" ["device"] "Bytes read from a block device.";
    FS_READS: Counter "container_fs_reads_total" ["device"] "Reads from a block device.";
    FS_WRITE_BYTES: Counter "container_fs_writes_bytes_total" ["device"] "Bytes written to a block device.";
    FS_WRITES: Counter "container_fs_writes_total" ["device"] "Writes to a block device.";
    FS_USAGE: Gauge "container_fs_usage_bytes" ["device"] "Bytes in the writable layer.";
    FS_LIMIT: Gauge "container_fs_limit_bytes" ["device"] "Size of the file system that holds the writable layer, in bytes.";
    FS_INODES_FREE: Gauge "container_fs_inodes_free" ["device"] "Free inodes of the file system that holds the writable layer.";
    FS_INODES_TOTAL: Gauge "container_fs_inodes_total" ["device"] "Inodes of the file system that holds the writable layer.";

    HUGE_USAGE: Gauge "container_hugetlb_usage_bytes" ["pagesize"] "Huge pages in use, in bytes.";
    HUGE_MAX: Gauge "container_hugetlb_max_usage_bytes" ["pagesize"] "The most huge pages in use so far, in bytes.";

    RECEIVE_BYTES: Counter "container_network_receive_bytes_total" ["interface"] "Bytes received.";
    RECEIVE_PACKETS: Counter "container_network_receive_packets_total" ["interface"] "Packets received.";
    RECEIVE_DROPPED: Counter "container_network_receive_packets_dropped_total" ["interface"] "Packets dropped while receiving.";
    RECEIVE_ERRORS: Counter "container_network_receive_errors_total" ["interface"] "Errors while receiving.";
    TRANSMIT_BYTES: Counter "container_network_transmit_bytes_total" ["interface"] "Bytes sent.";
    TRANSMIT_PACKETS: Counter "container_network_transmit_packets_total" ["interface"] "Packets sent.";
    TRANSMIT_DROPPED: Counter "container_network_transmit_packets_dropped_total" ["interface"] "Packets dropped while sending.";
    TRANSMIT_ERRORS: Counter "container_network_transmit_errors_total" ["interface"] "Errors while sending.";

    CPU_STALLED: Counter "container_pressure_cpu_stalled_seconds_total" [] "Time in which all tasks waited for a CPU, in seconds.";
    CPU_WAITING: Counter "container_pressure_cpu_waiting_seconds_total" [] "Time in which some tasks waited for a CPU, in seconds.";
    IO_STALLED: Counter "container_pressure_io_stalled_seconds_total" [] "Time in which all tasks waited for input or output, in seconds.";
    IO_WAITING: Counter "container_pressure_io_waiting_seconds_total" [] "Time in which some tasks waited for input or output, in seconds.";
    MEMORY_STALLED: Counter "container_pressure_memory_stalled_seconds_total" [] "Time in which all tasks waited for memory, in seconds.";
    MEMORY_WAITING: Counter "container_pressure_memory_waiting_seconds_total" [] "Time in which some tasks waited for memory, in seconds.";

    PROCESSES: Gauge "container_processes" [] "Processes that run.";
    THREADS: Gauge "container_threads" [] "Threads that run.";
    THREADS_MAX: Gauge "container_threads_max" [] "How many threads may run; 0 is no limit.";
    FILE_DESCRIPTORS: Gauge "container_file_descriptors" [] "Open file descriptors of its processes.";
    SOCKETS: Gauge "container_sockets" [] "Open sockets among its file descriptors.";
    ULIMITS: Gauge "container_ulimits_soft" ["ulimit"] "Soft resource limits of its first process.";

    SPEC_CPU_PERIOD: Gauge "container_spec_cpu_period" [] "The CPU quota's period as asked for, in microseconds.";
    SPEC_CPU_QUOTA: Gauge "container_spec_cpu_quota" [] "The CPU quota as asked for, in microseconds a period.";
    SPEC_CPU_SHARES: Gauge "container_spec_cpu_shares" [] "The CPU shares as asked for.";
    SPEC_MEMORY: Gauge "container_spec_memory_limit_bytes" [] "The memory limit as asked for, in bytes; 0 is none.";
    SPEC_MEMORY_RESERVATION: Gauge "container_spec_memory_reservation_limit_bytes" [] "The memory kept from reclaim as asked for, in bytes; 0 is none.";
    SPEC_MEMORY_SWAP: Gauge "container_spec_memory_swap_limit_bytes" [] "The limit of memory and swap together, in bytes; 0 is none.";
    START_TIME: Gauge "container_start_time_seconds" [] "When it started, in seconds since 1970.";
    LAST_SEEN: Gauge "container_last_seen" [] "When it was read, in seconds since 1970.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What critest wants of a runtime (cri-tools, pkg/validate/pod.go, for Kubernetes 1.37).
    const WANTED: &str = "container_blkio_device_usage_total container_cpu_cfs_periods_total
        container_cpu_cfs_throttled_periods_total container_cpu_cfs_throttled_seconds_total
        container_cpu_system_seconds_total container_cpu_usage_seconds_total container_cpu_user_seconds_total
        container_file_descriptors container_fs_inodes_free container_fs_inodes_total container_fs_limit_bytes
        container_fs_reads_bytes_total container_fs_reads_total container_fs_usage_bytes
        container_fs_writes_bytes_total container_fs_writes_total container_hugetlb_max_usage_bytes
        container_hugetlb_usage_bytes container_last_seen container_memory_cache container_memory_failcnt
        container_memory_failures_total container_memory_kernel_usage container_memory_mapped_file
        container_memory_max_usage_bytes container_memory_rss container_memory_swap container_memory_usage_bytes
        container_memory_working_set_bytes container_network_receive_bytes_total
        container_network_receive_errors_total container_network_receive_packets_dropped_total
        container_network_receive_packets_total container_network_transmit_bytes_total
        container_network_transmit_errors_total container_network_transmit_packets_dropped_total
        container_network_transmit_packets_total container_oom_events_total
        container_pressure_cpu_stalled_seconds_total container_pressure_cpu_waiting_seconds_total
        container_pressure_io_stalled_seconds_total container_pressure_io_waiting_seconds_total
        container_pressure_memory_stalled_seconds_total container_pressure_memory_waiting_seconds_total
        container_processes container_sockets container_spec_cpu_period container_spec_cpu_quota
        container_spec_cpu_shares container_spec_memory_limit_bytes container_spec_memory_reservation_limit_bytes
        container_spec_memory_swap_limit_bytes container_start_time_seconds container_threads container_threads_max
        container_ulimits_soft";

    #[test]
    fn every_wanted_metric_is_described_once() {
        let wanted: BTreeSet<&str> = WANTED.split_whitespace().collect();
        assert_eq!(wanted.len(), 56);
        let all = all();
        let described: BTreeSet<&str> = all.iter().map(|descriptor| descriptor.name.as_str()).collect();
        assert_eq!((described.len(), described), (all.len(), wanted));
        for descriptor in &all {
            assert!(!descriptor.help.is_empty(), "{}", descriptor.name);
            let keys: BTreeSet<&String> = descriptor.label_keys.iter().collect();
            assert_eq!(keys.len(), descriptor.label_keys.len(), "{}: a label twice", descriptor.name);
            assert!(descriptor.label_keys.starts_with(&BASE.map(str::to_owned)));
        }
    }
}
