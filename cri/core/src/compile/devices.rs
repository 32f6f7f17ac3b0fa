//! Device nodes and the device rules of a container's cgroup.

use berth_cri_proto::v1 as cri;
use berth_plan::container::DeviceKind;
use oci_spec::runtime as oci;

use crate::{
    error::{ConfigError, no_nul},
    view::{HostDevice, Paths},
};

/// Nodes beyond the default ones, and all rules.
pub(super) struct Devices {
    pub(super) nodes: Vec<oci::LinuxDevice>,
    pub(super) rules: Vec<oci::LinuxDeviceCgroup>,
}

/// Character devices that every container may use: null, zero, full, random, urandom, tty, ptmx and all of pts.
const ALLOWED: [(i64, Option<i64>); 8] =
    [(1, Some(3)), (1, Some(5)), (1, Some(7)), (1, Some(8)), (1, Some(9)), (5, Some(0)), (5, Some(2)), (136, None)];

/// The host paths of devices that a container asks for, for the caller to look up into
/// [`crate::view::HostFiles::devices`].
pub fn host_devices(config: &cri::ContainerConfig) -> impl Iterator<Item = &str> {
    config.devices.iter().map(|device| device.host_path.as_str())
}

pub(super) fn build(
    config: &cri::ContainerConfig,
    security: &cri::LinuxContainerSecurityContext,
    paths: &Paths,
) -> Result<Devices, ConfigError> {
    let mut nodes: Vec<oci::LinuxDevice> = Vec::new();
    let mut rules = vec![rule(false, None, None, None, "rwm")];
    // Anyone may make a node of any device; using it is what the rules below are about.
    for kind in [oci::LinuxDeviceType::C, oci::LinuxDeviceType::B] {
        rules.push(rule(true, Some(kind), None, None, "m"));
    }
    for (major, minor) in ALLOWED {
        rules.push(rule(true, Some(oci::LinuxDeviceType::C), Some(major), minor, "rwm"));
    }
    if security.privileged {
        rules = vec![rule(true, None, None, None, "rwm")];
        for device in paths.host.all_devices.iter().filter(|device| offered(&device.path)) {
            put(&mut nodes, node(device, device.path.clone()));
        }
    }
    for (index, device) in config.devices.iter().enumerate() {
        let field = |name: &str| format!("devices[{index}].{name}");
        let access = &device.permissions;
        if access.is_empty() || access.chars().any(|c| !matches!(c, 'r' | 'w' | 'm')) {
            return Err(ConfigError::new(
                field("permissions"),
                format!("{access:?} is not made of r, w and m"),
                "use for example rw",
            ));
        }
        let found = paths.host.devices.get(&device.host_path).filter(|found| !found.is_empty()).ok_or_else(|| {
            ConfigError::new(
                field("host_path"),
                format!("{:?} is no device of the node", device.host_path),
                "name a device node or a folder of them",
            )
        })?;
        let inside = if device.container_path.is_empty() { &device.host_path } else { &device.container_path };
        no_nul(&field("container_path"), inside)?;
        if !inside.starts_with('/') || inside.split('/').any(|part| part == "..") {
            return Err(ConfigError::new(
                field("container_path"),
                format!("{inside:?} is not a plain absolute path"),
                "give one below /dev",
            ));
        }
        for host in found {
            let below = host.path.strip_prefix(device.host_path.as_str()).filter(|below| below.starts_with('/'));
            let path = match below {
                Some(below) => format!("{}{below}", inside.trim_end_matches('/')),
                None => inside.clone(),
            };
            let wanted = paths.host.nodes.get(&path).copied().unwrap_or_default();
            if wanted.kind.is_some_and(|kind| kind != host.kind)
                || wanted.major.is_some_and(|major| major != host.major)
                || wanted.minor.is_some_and(|minor| minor != host.minor)
            {
                return Err(ConfigError::new(
                    field("host_path"),
                    format!("{:?} is another device than its CDI specification says", host.path),
                    "correct the specification",
                ));
            }
            let mut node = node(host, path);
            if let Some(mode) = wanted.mode {
                node.set_file_mode(Some(mode & 0o7777));
            }
            let (uid, gid) = (wanted.uid.or(node.uid()), wanted.gid.or(node.gid()));
            node.set_uid(uid).set_gid(gid);
            if !security.privileged {
                rules.push(rule(true, Some(node.typ()), Some(node.major()), Some(node.minor()), access));
            }
            put(&mut nodes, node);
        }
    }
    Ok(Devices { nodes, rules })
}

/// What of the host's /dev a privileged container gets: not what it has as a mount or a link of its own.
fn offered(path: &str) -> bool {
    let Some(name) = path.strip_prefix("/dev/") else { return false };
    let folder = name.split('/').next().unwrap_or(name);
    !matches!(folder, "pts" | "shm" | "fd" | "mqueue" | "console" | "ptmx" | ".lxc" | ".lxd-mounts" | ".udev")
        && !path.split('/').any(|part| part == "..")
}

fn put(nodes: &mut Vec<oci::LinuxDevice>, node: oci::LinuxDevice) {
    nodes.retain(|known| known.path() != node.path());
    nodes.push(node);
}

fn node(device: &HostDevice, path: String) -> oci::LinuxDevice {
    let mut node = oci::LinuxDevice::default();
    node.set_path(path.into())
        .set_typ(match device.kind {
            DeviceKind::Character => oci::LinuxDeviceType::C,
            DeviceKind::Block => oci::LinuxDeviceType::B,
        })
        .set_major(i64::from(device.major))
        .set_minor(i64::from(device.minor))
        .set_file_mode(Some(device.mode & 0o7777))
        .set_uid(Some(device.uid))
        .set_gid(Some(device.gid));
    node
}

fn rule(
    allow: bool,
    kind: Option<oci::LinuxDeviceType>,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> oci::LinuxDeviceCgroup {
    let mut rule = oci::LinuxDeviceCgroup::default();
    rule.set_allow(allow).set_typ(kind).set_major(major).set_minor(minor).set_access(Some(access.to_owned()));
    rule
}
