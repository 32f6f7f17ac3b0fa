//! What `kubeadm init` does after its programs run: the door for nodes, and the addons.

use std::process::Command;

use anyhow::{Context, Result};

use super::ControlPlane;
use crate::{command, paths};

impl ControlPlane {
    /// Makes what a joining node asks for: bootstrap token, cluster-info, the configurations, the rights to all of it.
    ///
    /// # Errors
    /// kubeadm refuses.
    pub fn admit_nodes(&self) -> Result<()> {
        self.phase(&["bootstrap-token", "--skip-token-print"])?;
        self.phase(&["upload-config", "all"])
    }

    /// Installs CoreDNS and kube-proxy as kubeadm does.
    ///
    /// # Errors
    /// kubeadm refuses.
    pub fn install_addons(&self) -> Result<()> {
        self.phase(&["addon", "all"])
    }

    /// Makes a bootstrap token that ends after `ttl` (such as `1s`).
    ///
    /// # Errors
    /// kubeadm refuses.
    pub fn token(&self, ttl: &str) -> Result<String> {
        Ok(command::output(self.kubeadm().args(["token", "create", "--ttl", ttl]))?.trim().to_owned())
    }

    /// The hash by which a joining node knows the cluster's authority: `sha256:` and hexadecimal digits.
    ///
    /// # Errors
    /// kubeadm refuses.
    pub fn ca_hash(&self) -> Result<String> {
        let line = command::output(self.kubeadm().args(["token", "create", "--print-join-command"]))?;
        let hash = line.split_whitespace().find(|word| word.starts_with("sha256:"));
        Ok(hash.with_context(|| format!("no hash in {line:?}"))?.to_owned())
    }

    fn phase(&self, arguments: &[&str]) -> Result<()> {
        let mut kubeadm = Command::new(paths::control_plane_bin().join("kubeadm"));
        kubeadm.args(["init", "phase"]).args(arguments);
        kubeadm.arg("--config").arg(self.dir().join("kubeadm.yaml")).arg("--kubeconfig").arg(self.admin());
        command::logged(&mut kubeadm, &self.dir().join(format!("kubeadm-{}.log", arguments[0])))
    }

    fn kubeadm(&self) -> Command {
        let mut command = Command::new(paths::control_plane_bin().join("kubeadm"));
        command.arg("--kubeconfig").arg(self.admin());
        command
    }
}
