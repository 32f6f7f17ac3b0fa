//! A real Kubernetes control plane: etcd, kube-apiserver, kube-controller-manager and kube-scheduler.
//!
//! kubeadm makes the certificates and kubeconfigs. It refuses loopback addresses, so the control plane gets a bridge of
//! its own that carries one address; nodes under test take the same address or another of its network.

pub mod build;
mod cluster;
mod programs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::daemon::Daemon;
use crate::{command, ip, paths, wait};

/// The bridge that carries the control plane's address.
pub const BRIDGE: &str = "berth-cp0";
/// The control plane's address.
pub const ADDRESS: &str = "10.251.0.1";
/// The network of the bridge.
pub const PREFIX: u8 = 24;
/// Where pods get their addresses from; each node a /24.
pub const POD_NETWORK: &str = "10.244.0.0/16";
/// Where services get theirs from.
pub const SERVICE_NETWORK: &str = "10.96.0.0/16";

/// The bootstrap token that [`ControlPlane::admit_nodes`] makes.
pub const TOKEN: &str = "abcdef.0123456789abcdef";

/// Long enough for a cold start on a busy 2-core machine.
const READY: Duration = Duration::from_secs(120);

/// A running control plane. Dropping it stops the programs and removes the bridge; the folder stays for its logs.
#[derive(Debug)]
pub struct ControlPlane {
    dir: PathBuf,
    // In the order in which they are stopped.
    programs: Vec<(&'static str, Daemon)>,
    ca_hash: OnceLock<String>,
}

impl ControlPlane {
    /// Starts a control plane whose certificates, data and logs are in `dir`, and waits until it serves.
    ///
    /// # Errors
    /// A program is missing or does not become ready.
    pub fn start(dir: &Path) -> Result<Self> {
        Self::start_signing(dir, None)
    }

    /// The same; certificates for nodes are issued for `signing` (such as `3m`) instead of a year.
    ///
    /// # Errors
    /// A program is missing or does not become ready.
    pub fn start_signing(dir: &Path, signing: Option<&str>) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let dir = fs::canonicalize(dir)?;
        let bin = paths::control_plane_bin();
        for program in build::PROGRAMS {
            if !bin.join(program).is_file() {
                bail!("{} is not built: run `cargo xtask control-plane build`", bin.join(program).display());
            }
        }
        add_bridge()?;
        certificates(&dir)?;
        let mut plane = Self { dir, programs: Vec::new(), ca_hash: OnceLock::new() };
        plane.run("etcd", programs::etcd(&plane.dir))?;
        plane.run("kube-apiserver", programs::api_server(&plane.dir))?;
        plane.await_api_server()?;
        plane.run("kube-controller-manager", programs::controller_manager(&plane.dir, signing))?;
        plane.run("kube-scheduler", programs::scheduler(&plane.dir))?;
        plane.grant()?;
        plane.await_default_account()?;
        Ok(plane)
    }

    /// The folder of certificates, data and logs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The certificate authority that signs clients and servers.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("pki/ca.crt")
    }

    /// The cluster administrator's kubeconfig.
    pub fn admin(&self) -> PathBuf {
        self.dir.join("admin.conf")
    }

    /// `kubectl` as the cluster's administrator.
    pub fn kubectl(&self) -> Command {
        kubectl(&self.admin())
    }

    /// Makes a kubeconfig with the rights of node `name`.
    ///
    /// # Errors
    /// kubeadm refuses.
    pub fn node_kubeconfig(&self, name: &str) -> Result<PathBuf> {
        let config = self.dir.join("kubeadm.yaml");
        let text = command::output(
            kubeadm()
                .args(["kubeconfig", "user", "--org", "system:nodes", "--client-name"])
                .arg(format!("system:node:{name}"))
                .arg("--config")
                .arg(config),
        )?;
        let path = self.dir.join(format!("node-{name}.conf"));
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Lets the control plane run on after this process; [`down`] ends it.
    ///
    /// # Errors
    /// A process id can't be recorded.
    pub fn detach(mut self) -> Result<()> {
        for (name, daemon) in self.programs.drain(..) {
            let path = self.dir.join(format!("{name}.pid"));
            fs::write(path, daemon.detach().to_string())?;
        }
        std::mem::forget(self);
        Ok(())
    }

    /// Sends a signal to one of the programs.
    ///
    /// # Errors
    /// It is not running.
    pub fn signal(&self, program: &str, signal: Signal) -> Result<()> {
        let found = self.programs.iter().find(|(name, _)| *name == program);
        found.with_context(|| format!("{program} is no program of the control plane"))?.1.signal(signal)
    }

    fn run(&mut self, name: &'static str, mut command: Command) -> Result<()> {
        let daemon = Daemon::start(name, &mut command, &self.dir.join(format!("{name}.log")))?;
        self.programs.insert(0, (name, daemon));
        Ok(())
    }

    fn await_api_server(&mut self) -> Result<()> {
        let super_admin = self.dir.join("super-admin.conf");
        wait::until_true("the API server is ready", READY, || {
            Ok(command::output(kubectl(&super_admin).args(["get", "--raw", "/readyz"])).is_ok())
        })
        .map_err(|error| match self.first_ended() {
            Some(ended) => ended.context(error.to_string()),
            None => error,
        })
    }

    fn first_ended(&mut self) -> Option<anyhow::Error> {
        self.programs.iter_mut().find_map(|(_, daemon)| daemon.check().err())
    }

    /// kubeadm's later phases would bind these.
    fn grant(&self) -> Result<()> {
        let super_admin = self.dir.join("super-admin.conf");
        for (name, role, subject) in [
            ("kubeadm:cluster-admins", "cluster-admin", "--group=kubeadm:cluster-admins"),
            ("berth:apiserver-kubelet-client", "system:kubelet-api-admin", "--user=kube-apiserver-kubelet-client"),
        ] {
            let exists = kubectl(&super_admin).args(["get", "clusterrolebinding", name]).output()?.status.success();
            if !exists {
                command::output(kubectl(&super_admin).args([
                    "create",
                    "clusterrolebinding",
                    name,
                    "--clusterrole",
                    role,
                    subject,
                ]))?;
            }
        }
        Ok(())
    }

    /// Pods are refused until the controller manager has made the account that they run under.
    fn await_default_account(&mut self) -> Result<()> {
        let admin = self.admin();
        wait::until_true("the default service account exists", READY, || {
            Ok(command::output(kubectl(&admin).args(["get", "serviceaccount", "default"])).is_ok())
        })
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.programs.clear();
        remove_bridge();
    }
}

/// `kubectl` with a kubeconfig.
pub fn kubectl(kubeconfig: &Path) -> Command {
    let mut command = Command::new(paths::control_plane_bin().join("kubectl"));
    command.arg("--kubeconfig").arg(kubeconfig);
    command
}

fn kubeadm() -> Command {
    Command::new(paths::control_plane_bin().join("kubeadm"))
}

/// Ends a control plane that [`ControlPlane::detach`] left running in `dir`, and removes its bridge and folder.
///
/// # Errors
/// A program does not end.
pub fn down(dir: &Path) -> Result<()> {
    for name in ["kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"] {
        let path = dir.join(format!("{name}.pid"));
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let pid: i32 = text.trim().parse().with_context(|| format!("{} holds no process id", path.display()))?;
        // The number may belong to another program by now.
        let ours = || fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with(name));
        if ours() {
            kill(Pid::from_raw(pid), Signal::SIGTERM)?;
            wait::until_true(&format!("{name} ends"), Duration::from_secs(30), || Ok(!ours()))?;
        }
        fs::remove_file(&path)?;
    }
    remove_bridge();
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    Ok(())
}

/// Makes the bridge, with the address.
///
/// # Errors
/// It is there already.
pub(crate) fn add_bridge() -> Result<()> {
    if Path::new("/sys/class/net").join(BRIDGE).exists() || ip::run(&["link", "show", BRIDGE]).is_ok() {
        bail!("the bridge {BRIDGE} exists: is a control plane running? `cargo xtask control-plane down` ends it");
    }
    ip::run(&["link", "add", BRIDGE, "type", "bridge"])?;
    ip::run(&["address", "add", &format!("{ADDRESS}/{PREFIX}"), "dev", BRIDGE])?;
    ip::run(&["link", "set", BRIDGE, "up"])
}

fn remove_bridge() {
    // Nothing to do about a bridge that is gone already.
    let _ = ip::run(&["link", "delete", BRIDGE]);
}

fn certificates(dir: &Path) -> Result<()> {
    let config = dir.join("kubeadm.yaml");
    fs::write(&config, programs::kubeadm_config(dir))?;
    let phase = |name| {
        let mut command = kubeadm();
        command.args(["init", "phase", name, "all", "--config"]).arg(&config);
        command
    };
    command::logged(&mut phase("certs"), &dir.join("kubeadm-certs.log"))?;
    command::logged(phase("kubeconfig").arg("--kubeconfig-dir").arg(dir), &dir.join("kubeadm-kubeconfig.log"))
}
