//! What the guests of all scenarios have.

use std::fs;

use anyhow::Result;

use crate::controlplane::ADDRESS;
use crate::node;
use crate::paths;
use crate::scenario::Stage;
use crate::vm::Initramfs;

/// The guest's address on the control plane's bridge.
pub(super) const GUEST: &str = "10.251.0.2";

/// Gives the guest its address.
pub(super) const NETWORK: &str =
    "ip link set eth0 up && ip address add 10.251.0.2/24 dev eth0 && ip route add default via 10.251.0.1";

/// The program under test, and the files of a node: where kubeadm has them what an agent is given, where Berth has them
/// the registries.
pub(super) fn put_node(image: &mut Initramfs, stage: &Stage, node: &str, more: &str) -> Result<()> {
    image.program(&paths::berth("berth"), "usr/bin/berth")?;
    let kubeconfig = stage.plane().node_kubeconfig(node)?;
    image.put("etc/kubernetes/kubelet.conf", 0o600, &fs::read(kubeconfig)?);
    image.put("etc/kubernetes/pki/ca.crt", 0o644, &fs::read(stage.plane().ca())?);
    let configuration = node::kubelet_configuration("/etc/kubernetes/pki/ca.crt".as_ref()) + more;
    image.put("var/lib/kubelet/config.yaml", 0o644, configuration.as_bytes());
    let registry = stage.registry().address();
    let hosts = format!("server = \"http://{registry}\"\n");
    image.put(&format!("etc/berth/certs.d/{registry}/hosts.toml"), 0o644, hosts.as_bytes());
    image.put("etc/resolv.conf", 0o644, format!("nameserver {ADDRESS}\n").as_bytes());
    Ok(())
}

/// The units that Berth ships, where a distribution's package would put them.
pub(super) fn put_units(image: &mut Initramfs) -> Result<()> {
    let source = paths::checkout().join("manifests/systemd");
    for unit in ["berth-runtime.service", "berth-agent.service", "kubelet.service", "kubelet.service.d/10-kubeadm.conf"]
    {
        image.put(&format!("usr/lib/systemd/system/{unit}"), 0o644, &fs::read(source.join(unit))?);
    }
    Ok(())
}
