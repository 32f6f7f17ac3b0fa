//! A container's mounts: the defaults, the sandbox's files and the ones that the CRI lists.

use berth_cri_proto::v1 as cri;
use berth_guard::Guard;
use oci_spec::runtime as oci;

use super::lower::{IMAGE, IMAGE_LAYER, IMAGE_SUB_PATH};
use super::{NamespaceScope, SandboxPlan, UserIds, container::mapping, sandbox};
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
    let mounts = config.mounts.iter().filter(|mount| mount.image.is_none());
    mounts.map(|mount| mount.host_path.as_str()).filter(|path| !path.is_empty())
}

/// The images that a container mounts as volumes, for the caller to look up into [`crate::view::HostFiles::images`].
pub fn images(config: &cri::ContainerConfig) -> impl Iterator<Item = (&str, &str)> {
    config
        .mounts
        .iter()
        .filter_map(|mount| mount.image.as_ref().map(|image| (image.image.as_str(), mount.image_sub_path.as_str())))
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
        binds.push(match &mount.image {
            Some(image) => volume_image(index, mount, image, paths)?,
            None => bind(index, mount, plan, paths, &mut root_propagation)?,
        });
    }
    for (destination, source, readonly) in [
        ("/etc/hostname", paths.hostname.as_str(), security.readonly_rootfs),
        ("/etc/hosts", &paths.hosts, security.readonly_rootfs),
        ("/etc/resolv.conf", &paths.resolv_conf, security.readonly_rootfs),
        ("/dev/shm", if plan.ipc == NamespaceScope::Node { "/dev/shm" } else { &paths.shm }, false),
    ] {
        if !source.is_empty() && !binds.iter().any(|(path, _)| path == destination) {
            let options = ["rbind", "rprivate", if readonly { "ro" } else { "rw" }];
            let mut mount = make(destination, "bind", source, &options);
            set_ids(&mut mount, plan.user);
            binds.push((destination.to_owned(), mount));
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
            let writable = security.privileged && matches!(*kind, "sysfs" | "cgroup")
                || *kind == "cgroup" && !Guard::ReadonlyCgroups.stands();
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
    plan: &SandboxPlan,
    paths: &Paths,
    root_propagation: &mut Option<String>,
) -> Result<(String, oci::Mount), ConfigError> {
    let field = |name: &str| format!("mounts[{index}].{name}");
    if !mount.image_sub_path.is_empty() {
        return Err(ConfigError::new(field("image_sub_path"), "there is no image", "set image, or clear it"));
    }
    let ids = if mount.uid_mappings.is_empty() && mount.gid_mappings.is_empty() {
        None
    } else {
        Some(sandbox::user_ids(&field("uidMappings"), &mount.uid_mappings, &mount.gid_mappings)?)
    };
    let destination = destination(&field("container_path"), mount)?;
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
    options.extend(further_options(&field("mount_options"), mount)?);
    if plan.user.is_some() && mount.propagation() == cri::MountPropagation::PropagationBidirectional {
        return Err(ConfigError::new(
            field("propagation"),
            "mounts made in a user namespace of the pod can't spread to the node",
            "use PROPAGATION_PRIVATE or PROPAGATION_HOST_TO_CONTAINER",
        ));
    }
    let mut made = make(&destination, "bind", &source.resolved, &options);
    set_ids(&mut made, ids);
    Ok((destination, made))
}

fn set_ids(mount: &mut oci::Mount, ids: Option<UserIds>) {
    if let Some(ids) = ids {
        mount.set_uid_mappings(Some(vec![mapping(ids)])).set_gid_mappings(Some(vec![mapping(ids)]));
    }
}

fn destination(field: &str, mount: &cri::Mount) -> Result<String, ConfigError> {
    clean(&mount.container_path).ok_or_else(|| {
        ConfigError::new(
            field,
            format!("{:?} is not an absolute path below the root", mount.container_path),
            "give one like /data",
        )
    })
}

fn further_options<'a>(field: &str, mount: &'a cri::Mount) -> Result<impl Iterator<Item = &'a str>, ConfigError> {
    match mount.mount_options.iter().find(|option| !EXTRA_OPTIONS.contains(&option.as_str())) {
        None => Ok(mount.mount_options.iter().map(String::as_str)),
        Some(option) => Err(ConfigError::new(
            field,
            format!("{option:?} is not an option of a bind mount"),
            format!("use one of {}", EXTRA_OPTIONS.join(", ")),
        )),
    }
}

/// An image as a volume (KEP-4639): read-only, and its programs can be executed. In the OCI configuration it has a type
/// of its own, `image`, with its layers as options.
fn volume_image(
    index: usize,
    mount: &cri::Mount,
    image: &cri::ImageSpec,
    paths: &Paths,
) -> Result<(String, oci::Mount), ConfigError> {
    let field = |name: &str| format!("mounts[{index}].{name}");
    let refuse = |name: &str, reason: &str, remedy: &str| Err(ConfigError::new(field(name), reason, remedy));
    if !mount.host_path.is_empty() {
        return refuse("host_path", "it is set beside image", "set one of the two");
    }
    if !mount.readonly {
        return refuse("readonly", "an image is mounted, which nobody can write to", "set readonly");
    }
    if mount.propagation() != cri::MountPropagation::PropagationPrivate {
        return refuse("propagation", "an image is mounted, which has no mounts below", "use PROPAGATION_PRIVATE");
    }
    if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
        return refuse("uidMappings", "an image always has the ids of the pod", "leave the mappings out");
    }
    let sub_path = &mount.image_sub_path;
    no_nul(&field("image_sub_path"), sub_path)?;
    if sub_path.starts_with('/') || sub_path.split('/').any(|part| part == "..") {
        return refuse("image_sub_path", "it is not a plain relative path", "give one like share/data");
    }
    let destination = destination(&field("container_path"), mount)?;
    let found = paths.host.images.get(&image.image).filter(|_| !image.image.is_empty()).ok_or_else(|| {
        ConfigError::new(field("image.image"), format!("image {:?} is not on this node", image.image), "pull it first")
    })?;
    let mut options = vec!["ro".to_owned()];
    options.extend(further_options(&field("mount_options"), mount)?.map(str::to_owned));
    options.extend(found.layers.iter().map(|layer| format!("{IMAGE_LAYER}{layer}")));
    if !sub_path.is_empty() {
        options.push(format!("{IMAGE_SUB_PATH}{sub_path}"));
    }
    let mut made = make(&destination, IMAGE, &found.id, &[]);
    made.set_options(Some(options));
    Ok((destination, made))
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
