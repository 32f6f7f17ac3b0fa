//! `--pod-network=bridge`: a bridge network of Berth's own, in the state folder.
//!
//! The runtime takes it only while the CNI configuration folder has none, so a network add-on that is installed later
//! wins by itself.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

/// The bridge and the network's name.
const BRIDGE: &str = "berth0";
const NETWORK: &str = "berth";

/// The bridge network of one node.
#[derive(Debug)]
pub(crate) struct BridgeNetwork {
    path: PathBuf,
    text: Vec<u8>,
}

impl BridgeNetwork {
    /// A network for pods in `cidr`, written below `state`.
    pub(crate) fn new(state: &Path, cidr: &str) -> Result<Self> {
        let default_route = if cidr.contains(':') { "::/0" } else { "0.0.0.0/0" };
        let list = json!({
            "cniVersion": "1.1.0",
            "name": NETWORK,
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": BRIDGE,
                    "isGateway": true,
                    // The node may get another range when it joins again; the bridge is ours to change.
                    "forceAddress": true,
                    "ipMasq": true,
                    "hairpinMode": true,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{ "subnet": cidr }]],
                        "routes": [{ "dst": default_route }],
                    },
                },
                { "type": "portmap", "capabilities": { "portMappings": true } },
            ],
        });
        let text = serde_json::to_vec_pretty(&list).context("bridge network")?;
        berth_cni::NetworkList::parse(&text).with_context(|| format!("pod network {cidr:?}"))?;
        Ok(Self { path: berth_cri::own_network_dir(state).join("10-berth.conflist"), text })
    }

    /// Writes the configuration.
    pub(crate) fn write(&self) -> Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder)
            .and_then(|()| berth_effect::record::write_volatile(&self.path, &self.text))
            .with_context(|| format!("writing {}", self.path.display()))
    }

    /// Removes the configuration and, when no pod is left on it, the bridge.
    pub(crate) fn withdraw(&self) -> Result<()> {
        let removed = berth_effect::record::remove(&self.path);
        let list = berth_cni::NetworkList::parse(&self.text).context("bridge network")?;
        berth_cni_plugins::withdraw(&list).context("withdrawing the bridge network")?;
        removed.with_context(|| format!("removing {}", self.path.display()))
    }
}
