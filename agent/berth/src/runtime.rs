//! Opening the container runtime inside this process.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use berth_cri::{CgroupDriver, Config, Service};

use crate::cli::RuntimeOptions;

pub(crate) mod file;

pub(crate) async fn open(options: &RuntimeOptions) -> Result<Arc<Service>> {
    let config = config(options)?;
    if config.cgroup_driver == CgroupDriver::Systemd {
        bail!(
            "--cgroup-driver systemd (cgroup_driver in {}): the agent in this program makes the pods' cgroups by itself; \
             only `berth cri` works with systemd, for a kubelet whose cgroupDriver is systemd",
            options.runtime_config.display()
        );
    }
    Ok(Service::open(config).await?)
}

pub(crate) fn config(options: &RuntimeOptions) -> Result<Config> {
    let file = file::read(&options.runtime_config)?;
    let named = options.cgroup_driver.map(CgroupDriver::from);
    Ok(Config {
        root: options.root.clone(),
        state: options.state.clone(),
        cni_conf_dir: options.cni_conf_dir.clone(),
        cni_bin_dirs: vec![options.cni_bin_dir.clone()],
        registry_config_dir: options.registry_config_dir.clone(),
        cgroup_parent: cgroup_parent(&options.state),
        cgroup_driver: named.or(file.cgroup_driver).unwrap_or_default(),
        handlers: file.handlers,
        ..Config::default()
    })
}

/// Where the runtime keeps its own cgroups. What lies there and is nobody's is ended at start, so that runtimes with
/// different state folders must not share it.
fn cgroup_parent(state: &Path) -> String {
    let own = Config::default();
    if state == own.state {
        return own.cgroup_parent;
    }
    // FNV-1a: the same name at every start, whatever the toolchain.
    let hash = state
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{}-{hash:016x}", own.cgroup_parent)
}

/// The path of a unix socket's endpoint, as the kubelet writes it.
pub(crate) fn socket_path(endpoint: &str) -> Result<&Path> {
    let path = match endpoint.split_once("://") {
        Some(("unix", path)) => path,
        Some((scheme, _)) => bail!("endpoint {endpoint:?}: scheme {scheme:?} is not supported, use unix:///path"),
        None => endpoint,
    };
    if !path.starts_with('/') {
        bail!("endpoint {endpoint:?}: the path must be absolute, as in unix:///run/berth/cri.sock");
    }
    Ok(Path::new(path))
}

/// Resolves when the process is asked to end: SIGINT or SIGTERM.
pub(crate) async fn asked_to_end() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_folders_do_not_share_cgroups() {
        assert_eq!(cgroup_parent(Path::new("/run/berth")), "/berth");
        assert_eq!(cgroup_parent(Path::new("/run/a")), cgroup_parent(Path::new("/run/a")));
        assert_ne!(cgroup_parent(Path::new("/run/a")), cgroup_parent(Path::new("/run/b")));
    }

    #[test]
    fn endpoints_are_unix_sockets() {
        assert_eq!(socket_path("unix:///run/a.sock").expect("good"), Path::new("/run/a.sock"));
        assert_eq!(socket_path("/run/a.sock").expect("good"), Path::new("/run/a.sock"));
        for bad in ["tcp://127.0.0.1:1", "unix://run/a.sock", "a.sock", ""] {
            socket_path(bad).expect_err(bad);
        }
    }
}
