//! Limits of a cgroup (config-linux.md, "Control groups").

use berth_plan::container::DeviceKind;
use berth_plan::resources::{Resources, Setting};
use oci_spec::runtime as oci;

use super::wrong;
use crate::device_filter::Rule;
use crate::error::ConfigError;
use crate::host::CgroupLayout;

/// Everything that a container's cgroup is given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    pub resources: Resources,
    /// Written after the others, in this order.
    pub settings: Vec<Setting>,
    /// What may be done with devices: rules on top of "nothing".
    pub devices: Vec<Rule>,
    /// Refuses a memory limit below what is in use.
    pub check_before_update: bool,
}

/// Device nodes that every container may use, and those that it may make: runc's list.
const DEVICES: [(Option<u32>, Option<u32>, &str, DeviceKind); 11] = [
    (None, None, "m", DeviceKind::Character),
    (None, None, "m", DeviceKind::Block),
    (Some(1), Some(3), "rwm", DeviceKind::Character),
    (Some(1), Some(8), "rwm", DeviceKind::Character),
    (Some(1), Some(7), "rwm", DeviceKind::Character),
    (Some(5), Some(0), "rwm", DeviceKind::Character),
    (Some(1), Some(5), "rwm", DeviceKind::Character),
    (Some(1), Some(9), "rwm", DeviceKind::Character),
    (Some(136), None, "rwm", DeviceKind::Character),
    (Some(5), Some(2), "rwm", DeviceKind::Character),
    (Some(5), Some(1), "rwm", DeviceKind::Character),
];

/// Compiles limits; with none there are only the rules for devices.
///
/// # Errors
/// The first field that is wrong or that the machine's cgroups don't have, by its JSON path.
pub fn compile(resources: Option<&oci::LinuxResources>, layout: &CgroupLayout) -> Result<Limits, ConfigError> {
    let mut limits = update(resources, layout)?;
    for (index, rule) in resources.and_then(|one| one.devices().as_ref()).into_iter().flatten().enumerate() {
        limits.devices.push(device(index, rule)?);
    }
    limits.devices.extend(DEVICES.iter().map(|(major, minor, access, kind)| Rule {
        allow: true,
        kind: Some(*kind),
        major: *major,
        minor: *minor,
        access: (*access).to_owned(),
    }));
    Ok(limits)
}

/// As [`compile`], without the rules for devices: for changing what a container has.
///
/// # Errors
/// As [`compile`].
pub fn update(resources: Option<&oci::LinuxResources>, layout: &CgroupLayout) -> Result<Limits, ConfigError> {
    let mut limits = Limits::default();
    let Some(wanted) = resources else { return Ok(limits) };
    let v2 = matches!(layout, CgroupLayout::V2 { .. });
    let mut out = Out { v2, limits: &mut limits };
    if let Some(cpu) = wanted.cpu() {
        out.cpu(cpu)?;
    }
    if let Some(memory) = wanted.memory() {
        out.memory(memory)?;
    }
    if let Some(block) = wanted.block_io() {
        out.block(block)?;
    }
    // 0 stands for nothing said.
    out.limits.resources.pids_limit = wanted.pids().as_ref().map(oci::LinuxPids::limit).filter(|limit| *limit != 0);
    for (index, limit) in wanted.hugepage_limits().iter().flatten().enumerate() {
        out.huge_page(index, limit)?;
    }
    if let Some(network) = wanted.network() {
        out.network(network)?;
    }
    let mut rdma: Vec<_> = wanted.rdma().iter().flatten().collect();
    rdma.sort_by_key(|(name, _)| name.as_str());
    for (name, limit) in rdma {
        let number = |key: &str, limit: Option<u32>| limit.map(|limit| format!(" {key}={limit}")).unwrap_or_default();
        let (handles, objects) = (number("hca_handle", limit.hca_handles()), number("hca_object", limit.hca_objects()));
        out.set(format!("rdma[{name:?}]"), "rdma", &["rdma.max"], format!("{name}{handles}{objects}"));
    }
    out.unified(wanted)?;
    Ok(limits)
}

fn field(name: &str) -> String {
    format!("linux.resources.{name}")
}

struct Out<'a> {
    v2: bool,
    limits: &'a mut Limits,
}

impl Out<'_> {
    /// In the first of some files that is there.
    fn set(&mut self, name: impl AsRef<str>, controller: &str, files: &[&str], value: impl Into<String>) {
        let value = value.into();
        let files = files.iter().map(|file| ((*file).to_owned(), value.clone())).collect();
        self.limits.settings.push(Setting { field: field(name.as_ref()), controller: controller.to_owned(), files });
    }

    /// One of two files, by the version.
    fn either(&mut self, name: &str, controller: &str, v1: &str, v2: &str, value: impl Into<String>) {
        let file = if self.v2 { v2 } else { v1 };
        self.set(name, controller, &[file], value);
    }

    fn only_v1(&self, name: &str) -> Result<(), ConfigError> {
        if self.v2 { Err(wrong(field(name), "cgroup v2 does not have it", "remove it")) } else { Ok(()) }
    }

    fn cpu(&mut self, cpu: &oci::LinuxCpu) -> Result<(), ConfigError> {
        let lists = [("cpu.cpus", cpu.cpus()), ("cpu.mems", cpu.mems())];
        for (name, list) in lists {
            let list = list.as_deref().unwrap_or_default();
            if !list.bytes().all(|b| b.is_ascii_digit() || matches!(b, b',' | b'-' | b' ')) {
                return Err(wrong(field(name), format!("{list:?} is not a list of numbers"), "use the form 0-2,7"));
            }
        }
        let resources = &mut self.limits.resources;
        resources.cpuset_cpus = cpu.cpus().clone().unwrap_or_default();
        resources.cpuset_mems = cpu.mems().clone().unwrap_or_default();
        resources.cpu_shares = cpu.shares().filter(|shares| *shares != 0);
        resources.cpu_quota = cpu.quota().filter(|quota| *quota != 0).map(|quota| quota.max(-1));
        resources.cpu_period = cpu.period().filter(|period| *period != 0);
        if let Some(burst) = cpu.burst() {
            self.either("cpu.burst", "cpu", "cpu.cfs_burst_us", "cpu.max.burst", burst.to_string());
        }
        if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
            self.only_v1("cpu.realtimePeriod")?;
            self.set("cpu.realtimePeriod", "cpu", &["cpu.rt_period_us"], period.to_string());
        }
        if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
            self.only_v1("cpu.realtimeRuntime")?;
            self.set("cpu.realtimeRuntime", "cpu", &["cpu.rt_runtime_us"], runtime.to_string());
        }
        if let Some(idle) = cpu.idle() {
            self.set("cpu.idle", "cpu", &["cpu.idle"], idle.to_string());
        }
        Ok(())
    }

    fn memory(&mut self, memory: &oci::LinuxMemory) -> Result<(), ConfigError> {
        let (limit, swap) = (memory.limit().filter(|n| *n != 0), memory.swap().filter(|n| *n != 0));
        if let (Some(limit), Some(swap)) = (limit, swap)
            && swap >= 0
            && (limit < 0 || swap < limit)
        {
            return Err(wrong(field("memory.swap"), "it is below the memory limit, which it includes", "raise it"));
        }
        self.limits.resources.memory_limit = limit;
        self.limits.resources.memory_swap = swap;
        self.limits.check_before_update = memory.check_before_update().unwrap_or(false);
        if let Some(bytes) = memory.reservation().filter(|bytes| *bytes != 0) {
            let (v2, value) = (self.v2, bytes.to_string());
            let value = if v2 && bytes < 0 { "max".to_owned() } else { value };
            self.either("memory.reservation", "memory", "memory.soft_limit_in_bytes", "memory.low", value);
        }
        // `kernel` is no more: neither runc nor the kernel look at it.
        if let Some(bytes) = memory.kernel_tcp().filter(|bytes| *bytes != 0) {
            self.only_v1("memory.kernelTCP")?;
            self.set("memory.kernelTCP", "memory", &["memory.kmem.tcp.limit_in_bytes"], bytes.to_string());
        }
        if let Some(swappiness) = memory.swappiness() {
            self.only_v1("memory.swappiness")?;
            if swappiness > 100 {
                return Err(wrong(field("memory.swappiness"), format!("{swappiness} is above 100"), "use 0 to 100"));
            }
            self.set("memory.swappiness", "memory", &["memory.swappiness"], swappiness.to_string());
        }
        if memory.disable_oom_killer() == Some(true) {
            self.only_v1("memory.disableOOMKiller")?;
            self.set("memory.disableOOMKiller", "memory", &["memory.oom_control"], "1");
        }
        Ok(())
    }

    fn block(&mut self, block: &oci::LinuxBlockIo) -> Result<(), ConfigError> {
        if block.leaf_weight().is_some_and(|weight| weight != 0) {
            return Err(super::not_supported(field("blockIO.leafWeight")));
        }
        if let Some(weight) = block.weight().filter(|weight| *weight != 0) {
            if self.v2 {
                // BFQ's own, or the range of the cost model: 10..1000 to 1..10000, as runc converts it.
                let wide = 1 + u64::from(weight).saturating_sub(10) * 9999 / 990;
                let files = vec![
                    ("io.bfq.weight".to_owned(), weight.to_string()),
                    ("io.weight".to_owned(), format!("default {wide}")),
                ];
                self.limits.settings.push(Setting {
                    field: field("blockIO.weight"),
                    controller: "io".to_owned(),
                    files,
                });
            } else {
                self.set("blockIO.weight", "blkio", &["blkio.bfq.weight", "blkio.weight"], weight.to_string());
            }
        }
        for device in block.weight_device().iter().flatten() {
            let (at, weight) = (format!("{}:{}", device.major(), device.minor()), device.weight());
            if device.leaf_weight().is_some_and(|weight| weight != 0) {
                return Err(super::not_supported(field("blockIO.weightDevice.leafWeight")));
            }
            if let Some(weight) = weight.filter(|weight| *weight != 0) {
                let files: &[&str] =
                    if self.v2 { &["io.bfq.weight"] } else { &["blkio.bfq.weight_device", "blkio.weight_device"] };
                let controller = if self.v2 { "io" } else { "blkio" };
                self.set("blockIO.weightDevice", controller, files, format!("{at} {weight}"));
            }
        }
        let throttles = [
            ("throttleReadBpsDevice", block.throttle_read_bps_device(), "read_bps_device", "rbps"),
            ("throttleWriteBpsDevice", block.throttle_write_bps_device(), "write_bps_device", "wbps"),
            ("throttleReadIOPSDevice", block.throttle_read_iops_device(), "read_iops_device", "riops"),
            ("throttleWriteIOPSDevice", block.throttle_write_iops_device(), "write_iops_device", "wiops"),
        ];
        for (name, devices, v1, v2) in throttles {
            for device in devices.iter().flatten() {
                let (at, rate) = (format!("{}:{}", device.major(), device.minor()), device.rate());
                let name = format!("blockIO.{name}");
                if self.v2 {
                    let rate = if rate == 0 { "max".to_owned() } else { rate.to_string() };
                    self.set(name, "io", &["io.max"], format!("{at} {v2}={rate}"));
                } else {
                    self.set(name, "blkio", &[&format!("blkio.throttle.{v1}")], format!("{at} {rate}"));
                }
            }
        }
        Ok(())
    }

    fn huge_page(&mut self, index: usize, limit: &oci::LinuxHugepageLimit) -> Result<(), ConfigError> {
        let name = |name: &str| field(&format!("hugepageLimits[{index}].{name}"));
        let size = limit.page_size();
        let digits = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit));
        // It becomes part of a file's name.
        if digits.is_none_or(|digits| digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit())) {
            return Err(wrong(name("pageSize"), format!("{size:?} is not a page size"), "use the kernel's form, 2MB"));
        }
        let bytes = u64::try_from(limit.limit()).map_err(|_| wrong(name("limit"), "it is negative", "use bytes"))?;
        self.limits.resources.hugepage_limits.push((size.clone(), bytes));
        Ok(())
    }

    fn network(&mut self, network: &oci::LinuxNetwork) -> Result<(), ConfigError> {
        if let Some(class) = network.class_id().filter(|class| *class != 0) {
            self.only_v1("network.classID")?;
            self.set("network.classID", "net_cls", &["net_cls.classid"], class.to_string());
        }
        for one in network.priorities().iter().flatten() {
            self.only_v1("network.priorities")?;
            let line = format!("{} {}", one.name(), one.priority());
            self.set("network.priorities", "net_prio", &["net_prio.ifpriomap"], line);
        }
        Ok(())
    }

    fn unified(&mut self, wanted: &oci::LinuxResources) -> Result<(), ConfigError> {
        let mut files: Vec<_> = wanted.unified().clone().unwrap_or_default().into_iter().collect();
        files.sort();
        for (file, _) in &files {
            let name = field(&format!("unified[{file:?}]"));
            if !self.v2 {
                return Err(wrong(name, "this machine has cgroup v1", "use the fields for it"));
            }
            let plain = file.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
            if !plain || file.starts_with("cgroup.") || !file.contains('.') || file.starts_with('.') {
                return Err(wrong(name, "it is not a file of a controller", "use names like memory.high"));
            }
        }
        self.limits.resources.unified = files;
        Ok(())
    }
}

fn device(index: usize, rule: &oci::LinuxDeviceCgroup) -> Result<Rule, ConfigError> {
    let name = |name: &str| field(&format!("devices[{index}].{name}"));
    let kind = match rule.typ() {
        None | Some(oci::LinuxDeviceType::A) => None,
        Some(oci::LinuxDeviceType::B) => Some(DeviceKind::Block),
        Some(oci::LinuxDeviceType::C | oci::LinuxDeviceType::U) => Some(DeviceKind::Character),
        Some(other) => return Err(wrong(name("type"), format!("{:?} is no device", other.as_str()), "use a, b or c")),
    };
    let number = |what: &str, number: Option<i64>| match number {
        None | Some(-1) => Ok(None),
        Some(number) => match u32::try_from(number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(wrong(name(what), format!("{number} is out of range"), "use the device's own, or none")),
        },
    };
    let access = rule.access().clone().filter(|access| !access.is_empty()).unwrap_or_else(|| "rwm".to_owned());
    if !access.bytes().all(|b| matches!(b, b'r' | b'w' | b'm')) {
        return Err(wrong(name("access"), format!("{access:?} is no access"), "use letters of rwm"));
    }
    let (major, minor) = (number("major", rule.major())?, number("minor", rule.minor())?);
    if kind.is_none() && (major.is_some() || minor.is_some()) {
        return Err(wrong(name("type"), "a rule for numbers needs a type", "use b or c"));
    }
    Ok(Rule { allow: rule.allow(), kind, major, minor, access })
}
