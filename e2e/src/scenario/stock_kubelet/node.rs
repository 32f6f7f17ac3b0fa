//! The kubelet and `berth cri`, as two processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Statistics;
use crate::controlplane::ADDRESS;
use crate::cri::{Cri, Start};
use crate::daemon::Daemon;
use crate::kube::{self, Kube};
use crate::scenario::Stage;
use crate::{command, paths, wait};

/// The node's pods; the controller manager gives the first node the same.
const POD_CIDR: &str = "10.244.0.0/24";

#[derive(Debug)]
pub(super) struct Node {
    name: String,
    dir: PathBuf,
    kubelet: Daemon,
    cri: Cri,
}

impl Node {
    /// Starts both.
    pub(super) fn start(stage: &Stage, name: &str, statistics: Statistics) -> Result<Self> {
        let dir = stage.dir().join(name);
        let cri = Cri::start(Start { network: Some(network()), log_level: "info", ..Start::new(&dir) })?;
        let kubeconfig = stage.plane().node_kubeconfig(name)?;
        let config = dir.join("kubelet.yaml");
        fs::write(&config, configuration(&stage.plane().ca(), cri.socket(), &dir, statistics))?;
        let mut command = Command::new(paths::control_plane_bin().join("kubelet"));
        command.arg("--config").arg(&config).arg("--kubeconfig").arg(kubeconfig);
        command.args(["--hostname-override", name, "--node-ip", ADDRESS]);
        command.arg("--root-dir").arg(dir.join("kubelet")).arg("--cert-dir").arg(dir.join("pki"));
        let kubelet = Daemon::start("kubelet", &mut command, &dir.join("kubelet.log"))?;
        Ok(Self { name: name.to_owned(), dir, kubelet, cri })
    }

    /// Fails when one of them has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        self.cri.check()?;
        self.kubelet.check()
    }

    pub(super) fn await_ready(&mut self, kube: &Kube) -> Result<()> {
        let name = self.name.clone();
        wait::until_true("the node is Ready", kube::PATIENCE, || {
            self.check()?;
            Ok(kube.get("node", &name)?.is_some_and(|node| kube::ready(&node)))
        })
    }

    pub(super) fn end_of_logs(&self) -> String {
        let logs = ["kubelet.log", "cri.log"].map(|name| self.dir.join(name));
        logs.map(|log| format!("the end of {}:\n{}", log.display(), command::tail_of(&log))).join("\n")
    }

    /// Ends both by SIGTERM, the kubelet first.
    pub(super) fn stop(self) -> Result<()> {
        self.kubelet.stop().context("the kubelet")?;
        self.cri.stop().map(drop)
    }
}

/// Removes iptables' tables, in which the kubelet leaves chains; Berth's rules are in tables of its own.
pub(super) fn forget_the_kubelets_rules() -> Result<()> {
    for family in ["ip", "ip6"] {
        for table in ["filter", "mangle", "nat"] {
            command::output(Command::new("nft").args(["delete", "table", family, table]))?;
        }
    }
    Ok(())
}

fn network() -> String {
    serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "stock",
        "plugins": [
            {
                "type": "bridge", "bridge": "stock0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
                "ipam": {"type": "host-local", "ranges": [[{"subnet": POD_CIDR}]], "routes": [{"dst": "0.0.0.0/0"}]},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
    .to_string()
}

/// The test machine's cgroups are v1 and its disk is others' too; the rest is as kubeadm writes it.
fn configuration(ca: &Path, socket: &Path, dir: &Path, statistics: Statistics) -> String {
    let gate = statistics == Statistics::Cri;
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: false}}
  x509: {{clientCAFile: {ca}}}
authorization: {{mode: AlwaysAllow}}
cgroupDriver: cgroupfs
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix://{socket}
evictionHard: {{memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%}}
failCgroupV1: false
failSwapOn: false
featureGates: {{PodAndContainerStatsFromCRI: {gate}}}
podLogsDir: {logs}
",
        ca = ca.display(),
        socket = socket.display(),
        logs = dir.join("logs").display(),
    )
}
