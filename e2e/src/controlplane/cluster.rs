//! What `kubeadm init` does after its programs run: the door for nodes, and the addons.

use std::process::Command;

use anyhow::{Context, Result};

use super::ControlPlane;
use crate::command;

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

    /// The hash by which a joining node knows the cluster's authority: `sha256:` and hexadecimal digits. kubeadm tells it
    /// with a new bootstrap token, so it is asked once.
    ///
    /// # Errors
    /// kubeadm refuses.
    pub fn ca_hash(&self) -> Result<&str> {
        if let Some(hash) = self.ca_hash.get() {
            return Ok(hash);
        }
        let line = command::output(self.kubeadm().args(["token", "create", "--print-join-command"]))?;
        let hash = line.split_whitespace().find(|word| word.starts_with("sha256:"));
        let hash = hash.with_context(|| format!("no hash in {line:?}"))?;
        Ok(self.ca_hash.get_or_init(|| hash.to_owned()))
    }

    fn phase(&self, arguments: &[&str]) -> Result<()> {
        let mut kubeadm = self.kubeadm();
        kubeadm.args(["init", "phase"]).args(arguments).arg("--config").arg(self.dir().join("kubeadm.yaml"));
        command::logged(&mut kubeadm, &self.dir().join(format!("kubeadm-{}.log", arguments[0])))
    }

    fn kubeadm(&self) -> Command {
        let mut command = super::kubeadm();
        command.arg("--kubeconfig").arg(self.admin());
        command
    }
}
