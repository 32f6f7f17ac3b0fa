//! A container's mounts: the defaults, the sandbox's files and the ones that the CRI lists.

use berth_cri_proto::v1 as cri;
use oci_spec::runtime as oci;

use super::{NamespaceScope, SandboxPlan};
use crate::{
    error::{ConfigError, no_nul},
    view::{Paths, Propagation},
};

/// What every container has, in this order: (destination, type, source, options).
const DEFAULTS: [(&str, &str, &str, &[&str]); 7] = [
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
];

/// Options that `Mount.mount_options` may add.
const EXTRA_OPTIONS: [&str; 8] =
    ["noexec", "nodev", "nosuid", "nosymfollow", "noatime", "nodiratime", "relatime", "strictatime"];

/// Mounts in the order in which they are made.
pub(super) struct Mounts {
    pub(super) mounts: Vec<oci::Mount>,
    /// `rslave` or `rshared` where a mount is to receive or spread mounts.
    pub(super) root_propagation: Option<String>,
}

/// The host paths that a container mounts, for the caller to look up into [`crate::view::HostFiles::mounts`].
pub fn host_paths(config: &cri::ContainerConfig) -> impl Iterator<Item = &str> {
    config.mounts.iter().map(|mount| mount.host_path.as_str()).filter(|path| !path.is_empty())
}

pub(super) fn build(
    plan: &SandboxPlan,
    config: &cri::ContainerConfig,
    security: &cri::LinuxContainerSecurityContext,
    paths: &Paths,
) -> Result<Mounts, ConfigError> {
    let mut root_propagation = None;
    let mut binds = Vec::with_capacity(config.mounts.len() + 4);
    for (index, mount) in config.mounts.iter().enumerate() {
        binds.push(bind(index, mount, paths, &mut root_propagation)?);
    }
    for (destination, source, readonly) in [
        ("/etc/hostname", paths.hostname.as_str(), security.readonly_rootfs),
        ("/etc/hosts", &paths.hosts, security.readonly_rootfs),
        ("/etc/resolv.conf", &paths.resolv_conf, security.readonly_rootfs),
        ("/dev/shm", if plan.ipc == NamespaceScope::Node { "/dev/shm" } else { &paths.shm }, false),
    ] {
        if !source.is_empty() && !binds.iter().any(|(path, _)| path == destination) {
            let options = ["rbind", "rprivate", if readonly { "ro" } else { "rw" }];
            binds.push((destination.to_owned(), make(destination, "bind", source, &options)));
        }
    }
    // A mount on /a/b must not be hidden by a later one on /a.
    binds.sort_by_key(|(path, _)| path.matches('/').count());

    let replaced = |path: &str| binds.iter().any(|(destination, _)| destination == path);
    let own_dev = replaced("/dev");
    let hidden = |path: &str| replaced(path) || (own_dev && path.starts_with("/dev/"));
    let mut mounts: Vec<_> = DEFAULTS
        .iter()
        .filter(|(path, ..)| !hidden(path))
        .map(|(path, kind, source, options)| {
            let writable = security.privileged && matches!(*kind, "sysfs" | "cgroup");
            let options: Vec<_> =
                options.iter().map(|option| if writable && *option == "ro" { "rw" } else { option }).collect();
            make(path, kind, source, &options)
        })
        .collect();
    mounts.extend(binds.into_iter().map(|(_, mount)| mount));
    Ok(Mounts { mounts, root_propagation })
}

fn make(destination: &str, kind: &str, source: &str, options: &[&str]) -> oci::Mount {
    let mut mount = oci::Mount::default();
    mount
        .set_destination(destination.into())
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.into()))
        .set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
    mount
}

/// One of the CRI's mounts, with its cleaned destination.
fn bind(
    index: usize,
    mount: &cri::Mount,
    paths: &Paths,
    root_propagation: &mut Option<String>,
) -> Result<(String, oci::Mount), ConfigError> {
    let field = |name: &str| format!("mounts[{index}].{name}");
    if mount.image.is_some() || !mount.image_sub_path.is_empty() {
        return Err(ConfigError::new(field("image"), "image volumes are not implemented", "use another volume type"));
    }
    if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
        return Err(ConfigError::new(
            field("uidMappings"),
            "mapped mounts belong to user namespaces, which are not implemented",
            "leave the mappings out",
        ));
    }
    let destination = clean(&mount.container_path).ok_or_else(|| {
        ConfigError::new(
            field("container_path"),
            format!("{:?} is not an absolute path below the root", mount.container_path),
            "give one like /data",
        )
    })?;
    no_nul(&field("host_path"), &mount.host_path)?;
    let source = paths.host.mounts.get(&mount.host_path).ok_or_else(|| {
        ConfigError::new(
            field("host_path"),
            format!("{:?} does not exist on the node", mount.host_path),
            "create it, or use a hostPath type that does",
        )
    })?;
    let mut options = vec!["rbind"];
    options.push(propagation(&field("propagation"), mount, source.propagation, root_propagation)?);
    options.push(match (mount.readonly, mount.recursive_read_only) {
        (false, false) => "rw",
        (true, false) => "ro",
        (false, true) => {
            return Err(ConfigError::new(field("recursive_read_only"), "readonly is not set", "set readonly too"));
        }
        (true, true) if mount.propagation() != cri::MountPropagation::PropagationPrivate => {
            return Err(ConfigError::new(
                field("recursive_read_only"),
                format!("propagation is {}", mount.propagation().as_str_name()),
                "use PROPAGATION_PRIVATE",
            ));
        }
        (true, true) => "rro",
    });
    for option in &mount.mount_options {
        if !EXTRA_OPTIONS.contains(&option.as_str()) {
            return Err(ConfigError::new(
                field("mount_options"),
                format!("{option:?} is not an option of a bind mount"),
                format!("use one of {}", EXTRA_OPTIONS.join(", ")),
            ));
        }
        options.push(option);
    }
    Ok((destination.clone(), make(&destination, "bind", &source.resolved, &options)))
}

fn propagation(
    field: &str,
    mount: &cri::Mount,
    host: Propagation,
    root: &mut Option<String>,
) -> Result<&'static str, ConfigError> {
    let refuse = |needed: &str| {
        ConfigError::new(
            field,
            format!("{:?} lies on a mount that is not {needed}", mount.host_path),
            "make the mount shared on the node (mount --make-rshared)",
        )
    };
    match mount.propagation() {
        cri::MountPropagation::PropagationPrivate => Ok("rprivate"),
        cri::MountPropagation::PropagationHostToContainer => {
            if host == Propagation::Private {
                return Err(refuse("shared or a slave"));
            }
            root.get_or_insert_with(|| "rslave".to_owned());
            Ok("rslave")
        }
        cri::MountPropagation::PropagationBidirectional => {
            if host != Propagation::Shared {
                return Err(refuse("shared"));
            }
            *root = Some("rshared".to_owned());
            Ok("rshared")
        }
    }
}

/// Resolves `.`, `..` and doubled slashes; `None` for what is not absolute, is the root, or cannot be a C string.
fn clean(path: &str) -> Option<String> {
    if !path.starts_with('/') || path.contains('\0') {
        return None;
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| format!("/{}", parts.join("/")))
}
