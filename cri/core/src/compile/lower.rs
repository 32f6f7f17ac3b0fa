//! OCI configuration to compiled plan: option words become bits and the runtime's own defaults (devices, links) are
//! added. What a plan cannot express is refused.

use berth_plan::container as plan;
use oci_spec::runtime as oci;

use crate::{
    capabilities,
    error::ConfigError,
    host::{CgroupLayout, Hierarchy, HostFacts, UnifiedOptions},
    seccomp,
};

/// The type of a mount that an image's files are, and its options.
pub(super) const IMAGE: &str = "image";
pub(super) const IMAGE_LAYER: &str = "layer=";
pub(super) const IMAGE_SUB_PATH: &str = "subpath=";

// linux/mount.h
pub(crate) const MOUNT_ATTR_RDONLY: u64 = 0x1;
const MOUNT_ATTR_NOSUID: u64 = 0x2;
const MOUNT_ATTR_NODEV: u64 = 0x4;
const MOUNT_ATTR_NOEXEC: u64 = 0x8;
pub(crate) const MOUNT_ATTR_ATIME: u64 = 0x70;
const MOUNT_ATTR_NOATIME: u64 = 0x10;
const MOUNT_ATTR_STRICTATIME: u64 = 0x20;
const MOUNT_ATTR_NODIRATIME: u64 = 0x80;
const MOUNT_ATTR_NOSYMFOLLOW: u64 = 0x20_0000;
pub(crate) const MS_REC: u64 = 1 << 14;
const MS_UNBINDABLE: u64 = 1 << 17;
const MS_PRIVATE: u64 = 1 << 18;
pub(crate) const MS_SLAVE: u64 = 1 << 19;
const MS_SHARED: u64 = 1 << 20;

/// Device nodes that every container has: (path, major, minor).
const DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Links that every container has: (path, target).
pub(crate) const LINKS: [(&str, &str); 6] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// What a plan says beyond the OCI configuration.
#[derive(Debug, Clone)]
pub struct Outside {
    pub id: String,
    /// Whose PID namespace the container is born into; `None` where it has one of its own, or the caller's.
    pub pid_from: Option<plan::PidFrom>,
    pub rootfs: plan::Rootfs,
    pub log_path: String,
    pub stdin: plan::Stdin,
    /// Under which the compiled filter is kept; `None` compiles it each time.
    pub filter: Option<seccomp::Key>,
}

/// Compiles an OCI configuration.
pub fn container(facts: &HostFacts, spec: &oci::Spec, outside: Outside) -> Result<plan::Container, ConfigError> {
    let linux = spec.linux().clone().unwrap_or_default();
    let mounts: Vec<_> = spec
        .mounts()
        .iter()
        .flatten()
        .enumerate()
        .map(|(index, mount)| lower_mount(facts, index, mount))
        .collect::<Result<_, _>>()?;
    // With a /dev of the caller's, what is in it is the caller's business.
    let own_dev = mounts
        .iter()
        .any(|mount| mount.destination == "/dev" && matches!(mount.source, plan::MountSource::Bind { .. }));
    let mut sysctls: Vec<_> = linux.sysctl().clone().unwrap_or_default().into_iter().collect();
    sysctls.sort();
    let new = new_namespaces(&linux);
    Ok(plan::Container {
        id: outside.id,
        namespaces: new,
        pid_from: outside.pid_from.unwrap_or_default(),
        user: range("linux.uidMappings", linux.uid_mappings(), linux.gid_mappings())?,
        hostname: spec.hostname().clone().filter(|_| new.uts),
        rootfs: outside.rootfs,
        readonly_rootfs: spec.root().as_ref().and_then(oci::Root::readonly).unwrap_or(false),
        root_propagation: match linux.rootfs_propagation().as_deref() {
            None | Some("") => MS_SLAVE | MS_REC,
            Some(word) => propagation(word).ok_or_else(|| {
                ConfigError::new("linux.rootfsPropagation", format!("{word:?} is unknown"), "use rslave or rshared")
            })?,
        },
        mounts,
        devices: if own_dev { Vec::new() } else { devices(&linux)? },
        links: if own_dev { Vec::new() } else { LINKS.map(|(path, to)| (path.to_owned(), to.to_owned())).to_vec() },
        sysctls,
        masked_paths: linux.masked_paths().clone().unwrap_or_default(),
        readonly_paths: linux.readonly_paths().clone().unwrap_or_default(),
        process: process(facts, spec, &linux, outside.filter)?,
        log_path: outside.log_path,
        stdin: outside.stdin,
        delegate: None,
    })
}

/// The one range of a pair of mappings.
fn range(
    field: &str,
    uids: &Option<Vec<oci::LinuxIdMapping>>,
    gids: &Option<Vec<oci::LinuxIdMapping>>,
) -> Result<Option<plan::IdRange>, ConfigError> {
    let (uids, gids) = (uids.as_deref().unwrap_or_default(), gids.as_deref().unwrap_or_default());
    match (uids, gids) {
        ([], []) => Ok(None),
        ([uid], [gid]) if uid == gid && uid.container_id() == 0 && uid.size() > 0 => {
            Ok(Some(plan::IdRange { host: uid.host_id(), length: uid.size() }))
        }
        _ => Err(ConfigError::new(
            field,
            "users and groups need one and the same mapping, of id 0 and up",
            "give one mapping for both",
        )),
    }
}

pub(crate) fn new_namespaces(linux: &oci::Linux) -> plan::NewNamespaces {
    let new =
        |typ| linux.namespaces().iter().flatten().any(|namespace| namespace.typ() == typ && namespace.path().is_none());
    plan::NewNamespaces {
        mount: new(oci::LinuxNamespaceType::Mount),
        pid: new(oci::LinuxNamespaceType::Pid),
        cgroup: new(oci::LinuxNamespaceType::Cgroup),
        ipc: new(oci::LinuxNamespaceType::Ipc),
        uts: new(oci::LinuxNamespaceType::Uts),
        net: new(oci::LinuxNamespaceType::Network),
    }
}

pub(crate) fn propagation(word: &str) -> Option<u64> {
    let (word, recursive) = match word.strip_prefix('r') {
        Some(rest) => (rest, MS_REC),
        None => (word, 0),
    };
    Some(match word {
        "private" => MS_PRIVATE | recursive,
        "slave" => MS_SLAVE | recursive,
        "shared" => MS_SHARED | recursive,
        "unbindable" => MS_UNBINDABLE | recursive,
        _ => return None,
    })
}

/// The attribute of an option word, and whether the word sets or clears it.
pub(crate) fn attribute(word: &str) -> Option<(u64, bool)> {
    Some(match word {
        "ro" => (MOUNT_ATTR_RDONLY, true),
        "rw" => (MOUNT_ATTR_RDONLY, false),
        "nosuid" => (MOUNT_ATTR_NOSUID, true),
        "suid" => (MOUNT_ATTR_NOSUID, false),
        "nodev" => (MOUNT_ATTR_NODEV, true),
        "dev" => (MOUNT_ATTR_NODEV, false),
        "noexec" => (MOUNT_ATTR_NOEXEC, true),
        "exec" => (MOUNT_ATTR_NOEXEC, false),
        "nosymfollow" => (MOUNT_ATTR_NOSYMFOLLOW, true),
        "symfollow" => (MOUNT_ATTR_NOSYMFOLLOW, false),
        "nodiratime" => (MOUNT_ATTR_NODIRATIME, true),
        "diratime" => (MOUNT_ATTR_NODIRATIME, false),
        _ => return None,
    })
}

/// The access time setting of an option word: one value of the `MOUNT_ATTR_ATIME` field, not a bit.
pub(crate) fn access_time(word: &str) -> Option<u64> {
    Some(match word {
        "relatime" | "nostrictatime" => 0,
        "noatime" => MOUNT_ATTR_NOATIME,
        "strictatime" => MOUNT_ATTR_STRICTATIME,
        _ => return None,
    })
}

/// A path without `.`, `..` and double slashes, so that each place has one name.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

fn lower_mount(facts: &HostFacts, index: usize, mount: &oci::Mount) -> Result<plan::Mount, ConfigError> {
    let field = || format!("mounts[{index}].options");
    let words = mount.options().as_deref().unwrap_or_default();
    let kind = mount.typ().as_deref().unwrap_or("bind");
    let bind = kind == "bind" || words.iter().any(|word| word == "bind" || word == "rbind");
    let mut lowered = plan::Mount {
        source: plan::MountSource::Bind { path: String::new(), recursive: false },
        destination: clean(&text(mount.destination())),
        attr_set: 0,
        attr_clear: 0,
        recursive_attr: false,
        propagation: 0,
        idmap: range(&format!("mounts[{index}].uidMappings"), mount.uid_mappings(), mount.gid_mappings())?,
    };
    let mut recursive = false;
    let mut rest = Vec::new();
    for word in words {
        if word == "bind" || word == "rbind" {
            recursive = word == "rbind";
        } else if let Some((bit, set)) = attribute(word) {
            lowered.attr_set = if set { lowered.attr_set | bit } else { lowered.attr_set & !bit };
            // A bind mount keeps what its source has (a read-only host mount stays so) unless a word other than the
            // usual `rw` takes it away.
            if !set && bit != MOUNT_ATTR_RDONLY {
                lowered.attr_clear |= bit;
            }
        } else if let Some(value) = access_time(word) {
            lowered.attr_set = lowered.attr_set & !MOUNT_ATTR_ATIME | value;
            lowered.attr_clear |= MOUNT_ATTR_ATIME;
        } else if let Some(flags) = propagation(word) {
            lowered.propagation = flags;
        } else if word == "rro" {
            if !facts.recursive_read_only {
                return Err(ConfigError::new(
                    field(),
                    "recursive read-only mounts need mount_setattr(2), and this kernel is older than 5.12",
                    "use a plain read-only mount, or a newer kernel",
                ));
            }
            lowered.attr_set |= MOUNT_ATTR_RDONLY;
            lowered.recursive_attr = true;
        } else if bind {
            return Err(ConfigError::new(field(), format!("{word:?} is not an option of a bind mount"), "remove it"));
        } else {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            rest.push((name.to_owned(), value.to_owned()));
        }
    }
    let source = mount.source().as_deref().map(text).unwrap_or_default();
    lowered.source = if bind {
        if !source.starts_with('/') {
            return Err(ConfigError::new(
                format!("mounts[{index}].source"),
                format!("{source:?} is not absolute"),
                "give an absolute path",
            ));
        }
        plan::MountSource::Bind { path: source, recursive }
    } else if kind == "cgroup" {
        cgroup(&facts.cgroups)
    } else if kind == IMAGE {
        let of = |prefix: &str| words.iter().filter_map(|word| word.strip_prefix(prefix)).map(str::to_owned).collect();
        let (layers, sub_path): (_, Vec<String>) = (of(IMAGE_LAYER), of(IMAGE_SUB_PATH));
        plan::MountSource::Image { layers, sub_path: sub_path.concat() }
    } else {
        lowered.attr_clear = 0;
        if !source.is_empty() {
            rest.insert(0, ("source".to_owned(), source));
        }
        plan::MountSource::Filesystem { kind: kind.to_owned(), options: rest }
    };
    Ok(lowered)
}

pub(crate) fn text(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The cgroup file systems as this host has them.
pub(crate) fn cgroup(layout: &CgroupLayout) -> plan::MountSource {
    let flag = |name: &str| (name.to_owned(), String::new());
    let v1 = |hierarchy: &Hierarchy| {
        let mut options: Vec<_> = hierarchy.controllers.iter().map(|name| flag(name)).collect();
        if let Some(name) = &hierarchy.name {
            if options.is_empty() {
                options.push(flag("none"));
            }
            options.push(("name".to_owned(), name.clone()));
        }
        (hierarchy.folder.clone(), "cgroup".to_owned(), options)
    };
    let v2 = |folder: &str, unified: UnifiedOptions| {
        let mut options = Vec::new();
        if unified.nsdelegate {
            options.push(flag("nsdelegate"));
        }
        if unified.memory_recursiveprot {
            options.push(flag("memory_recursiveprot"));
        }
        (folder.to_owned(), "cgroup2".to_owned(), options)
    };
    // `cpu` leads to `cpu,cpuacct`.
    let links = |hierarchies: &[Hierarchy]| {
        hierarchies
            .iter()
            .flat_map(|hierarchy| hierarchy.controllers.iter().map(|name| (name.clone(), hierarchy.folder.clone())))
            .filter(|(name, folder)| name != folder)
            .collect()
    };
    match layout {
        CgroupLayout::V2 { unified } => {
            plan::MountSource::Cgroup { hierarchies: vec![v2("", *unified)], links: Vec::new() }
        }
        CgroupLayout::V1 { hierarchies } => {
            plan::MountSource::Cgroup { hierarchies: hierarchies.iter().map(v1).collect(), links: links(hierarchies) }
        }
        CgroupLayout::Hybrid { hierarchies, unified } => plan::MountSource::Cgroup {
            hierarchies: hierarchies.iter().map(v1).chain([v2("unified", *unified)]).collect(),
            links: links(hierarchies),
        },
    }
}

pub(crate) fn devices(linux: &oci::Linux) -> Result<Vec<plan::Device>, ConfigError> {
    let mut devices: Vec<_> = DEVICES
        .iter()
        .map(|(path, major, minor)| plan::Device {
            path: (*path).to_owned(),
            kind: plan::DeviceKind::Character,
            major: *major,
            minor: *minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        })
        .collect();
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        let field = || format!("linux.devices[{index}]");
        let kind = match device.typ() {
            oci::LinuxDeviceType::C | oci::LinuxDeviceType::U => plan::DeviceKind::Character,
            oci::LinuxDeviceType::B => plan::DeviceKind::Block,
            other => {
                return Err(ConfigError::new(field(), format!("type {:?} is no device", other.as_str()), "use c or b"));
            }
        };
        let (Ok(major), Ok(minor)) = (u32::try_from(device.major()), u32::try_from(device.minor())) else {
            return Err(ConfigError::new(field(), "a number is out of range", "use the device's own"));
        };
        let lowered = plan::Device {
            path: text(device.path()),
            kind,
            major,
            minor,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
        };
        devices.retain(|known| known.path != lowered.path);
        devices.push(lowered);
    }
    Ok(devices)
}

fn process(
    facts: &HostFacts,
    spec: &oci::Spec,
    linux: &oci::Linux,
    key: Option<seccomp::Key>,
) -> Result<plan::Process, ConfigError> {
    let Some(process) = spec.process() else {
        return Err(ConfigError::new("process", "it is missing", "say what to run"));
    };
    let filter = match (linux.seccomp(), key) {
        (None, _) => Vec::new(),
        (Some(profile), None) => seccomp::compile(profile, facts.arch)?,
        (Some(profile), Some(key)) => facts.filters.get(key, || seccomp::compile(profile, facts.arch))?.to_vec(),
    };
    let user = process.user();
    Ok(plan::Process {
        args: process.args().clone().unwrap_or_default(),
        env: process.env().clone().unwrap_or_default(),
        cwd: text(process.cwd()),
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask(),
        capabilities: process.capabilities().as_ref().map(capabilities::from_oci).unwrap_or_default(),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        seccomp: filter,
        rlimits: process.rlimits().iter().flatten().map(rlimit).collect(),
        oom_score_adj: process.oom_score_adj(),
        terminal: process.terminal().unwrap_or(false),
        apparmor: process.apparmor_profile().clone().unwrap_or_default(),
    })
}

pub(crate) fn rlimit(limit: &oci::PosixRlimit) -> plan::Rlimit {
    use oci::PosixRlimitType as T;
    // asm-generic/resource.h, the same on every architecture here.
    let resource = match limit.typ() {
        T::RlimitCpu => 0,
        T::RlimitFsize => 1,
        T::RlimitData => 2,
        T::RlimitStack => 3,
        T::RlimitCore => 4,
        T::RlimitRss => 5,
        T::RlimitNproc => 6,
        T::RlimitNofile => 7,
        T::RlimitMemlock => 8,
        T::RlimitAs => 9,
        T::RlimitLocks => 10,
        T::RlimitSigpending => 11,
        T::RlimitMsgqueue => 12,
        T::RlimitNice => 13,
        T::RlimitRtprio => 14,
        T::RlimitRttime => 15,
    };
    plan::Rlimit { resource, soft: limit.soft(), hard: limit.hard() }
}
