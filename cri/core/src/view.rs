//! What the decisions need to know of an image, a sandbox and the files that a container is made of. The caller looks
//! all of it up; nothing here touches a file.

use std::collections::BTreeMap;

use oci_spec::image::ImageConfiguration;

use crate::{cdi::NodeSpec, compile::SandboxPlan};

/// The part of an image that shapes a process. All of it is written by whoever built the image: hostile.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageView {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group`, … or empty.
    pub user: String,
    pub working_dir: String,
    /// `SIGTERM`, `15`, or empty.
    pub stop_signal: String,
    /// Paths of `VOLUME`s. They are plain folders of the container's own upper layer here, which has the same life.
    pub volumes: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// Contents of the image's /etc/passwd and /etc/group, bounded by the caller; empty where the image has none.
    pub passwd: String,
    pub group: String,
}

impl ImageView {
    pub fn new(image: &ImageConfiguration, passwd: String, group: String) -> Self {
        let Some(config) = image.config() else {
            return Self { passwd, group, ..Self::default() };
        };
        Self {
            entrypoint: config.entrypoint().clone().unwrap_or_default(),
            cmd: config.cmd().clone().unwrap_or_default(),
            env: config.env().clone().unwrap_or_default(),
            user: config.user().clone().unwrap_or_default(),
            working_dir: config.working_dir().clone().unwrap_or_default(),
            stop_signal: config.stop_signal().clone().unwrap_or_default(),
            volumes: config.volumes().clone().unwrap_or_default(),
            labels: config.labels().clone().unwrap_or_default().into_iter().collect(),
            passwd,
            group,
        }
    }
}

/// The sandbox that a container is made for.
#[derive(Debug, Clone, Copy)]
pub struct SandboxView<'a> {
    pub id: &'a str,
    /// From `PodSandboxConfig.metadata`; they become annotations of the OCI configuration.
    pub name: &'a str,
    pub namespace: &'a str,
    pub uid: &'a str,
    /// The process that sits in the sandbox's namespaces: its shim. The OCI configuration names them through it.
    pub holder: i32,
    /// Process 1 of the PID namespace that the containers share; 0 where they share none.
    pub init: i32,
    /// The running containers of the sandbox, with their first processes.
    pub running: &'a BTreeMap<String, i32>,
    pub plan: &'a SandboxPlan,
}

/// Files on the host for one container, all absolute host paths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Paths {
    /// The container's id, 64 hex digits.
    pub container: String,
    /// Layers, topmost first.
    pub lower: Vec<String>,
    pub upper: String,
    pub work: String,
    /// The CRI log; empty discards the output.
    pub log_path: String,
    /// The sandbox's files, bound over /etc/… and /dev/shm where the kubelet mounts nothing there; an empty path is not
    /// mounted.
    pub resolv_conf: String,
    pub hostname: String,
    pub hosts: String,
    pub shm: String,
    pub host: HostFiles,
}

/// What the caller found on the host under the paths that a container configuration names
/// ([`crate::compile::host_paths`], [`crate::compile::host_devices`], [`crate::compile::seccomp_profile_path`]).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostFiles {
    /// By `Mount.host_path` as written; what is missing here does not exist.
    pub mounts: BTreeMap<String, HostPath>,
    /// By `Device.host_path` as written: the device nodes there (more than one for a folder).
    pub devices: BTreeMap<String, Vec<HostDevice>>,
    /// What CDI specifications say of device nodes, by their path in the container ([`crate::cdi::Applied::nodes`]).
    pub nodes: BTreeMap<String, NodeSpec>,
    /// Every device node of the host's /dev, for a privileged container.
    pub all_devices: Vec<HostDevice>,
    /// The text of the seccomp profile that the configuration names as localhost.
    pub seccomp_profile: Option<String>,
    /// By `Mount.image.image` as written ([`crate::compile::images`]): the images that are mounted as volumes.
    pub images: BTreeMap<String, VolumeImage>,
    /// The AppArmor profiles that are loaded on the node.
    pub apparmor_profiles: Vec<String>,
}

/// An image as a volume.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeImage {
    /// Its id, `sha256:…`.
    pub id: String,
    /// Layers, topmost first.
    pub layers: Vec<String>,
}

/// A mount's source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPath {
    /// Absolute, without symbolic links.
    pub resolved: String,
    pub propagation: Propagation,
}

/// How mounts made below a host path spread, from /proc/self/mountinfo ([`crate::mountinfo::propagation`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Propagation {
    #[default]
    Private,
    Slave,
    Shared,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDevice {
    /// Where it was found, absolute; under the `host_path` that was asked for.
    pub path: String,
    pub kind: berth_plan::container::DeviceKind,
    pub major: u32,
    pub minor: u32,
    /// Permission bits, without the type.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}
