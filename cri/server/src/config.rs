//! What the runtime is told at start.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use berth_cri_core::host::CgroupDriver;
use berth_image::Options;

use crate::Handlers;

/// Folders and options of the runtime; the defaults are those of the command line.
#[derive(Debug, Clone)]
pub struct Config {
    /// Durable: images, layers, container records. `/var/lib/berth`.
    pub root: PathBuf,
    /// On tmpfs, gone after a reboot: lock, sandboxes, namespaces. `/run/berth`.
    pub state: PathBuf,
    /// CNI network configurations; the first valid one is used. `/etc/cni/net.d`.
    pub cni_conf_dir: PathBuf,
    /// CNI plugins of other makers. `/opt/cni/bin`.
    pub cni_bin_dirs: Vec<PathBuf>,
    /// libcni's cache, shared with other runtimes on this machine. `/var/lib/cni`.
    pub cni_cache_dir: PathBuf,
    /// Specifications of devices (CDI); of two that describe one device, the one in the later folder counts. `/etc/cdi`
    /// and `/var/run/cdi`.
    pub cdi_spec_dirs: Vec<PathBuf>,
    /// `<host>/hosts.toml`, as containerd reads them. `/etc/berth/certs.d`.
    pub registry_config_dir: PathBuf,
    /// Who makes the cgroups of containers; clients learn it by RuntimeConfig. `Cgroupfs`.
    pub cgroup_driver: CgroupDriver,
    /// Parent of the cgroups of sandboxes that name none, from the root of the hierarchies. `/berth`.
    pub cgroup_parent: String,
    /// Where the URLs of Exec, Attach and PortForward lead; port 0 is any free one. The listener is there once the first
    /// URL is asked for, or the CRI is served on a socket. `127.0.0.1:0`.
    pub stream_address: SocketAddr,
    /// The runtimes that pods can choose by their RuntimeClass.
    pub handlers: Handlers,
    /// The program that checkpoints containers: a path, or a name that is looked for in PATH. `criu`.
    pub criu: PathBuf,
    /// How images are stored and unpacked. Its program applies layers; the default re-executes this program as
    /// `berth unpack`.
    pub images: Options,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "/var/lib/berth".into(),
            state: "/run/berth".into(),
            cni_conf_dir: "/etc/cni/net.d".into(),
            cni_bin_dirs: vec!["/opt/cni/bin".into()],
            cni_cache_dir: "/var/lib/cni".into(),
            cdi_spec_dirs: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
            registry_config_dir: "/etc/berth/certs.d".into(),
            cgroup_driver: CgroupDriver::default(),
            cgroup_parent: "/berth".to_owned(),
            stream_address: (Ipv4Addr::LOCALHOST, 0).into(),
            handlers: Handlers::default(),
            criu: "criu".into(),
            images: Options::default(),
        }
    }
}
