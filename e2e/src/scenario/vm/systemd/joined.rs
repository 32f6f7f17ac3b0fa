//! The same machine, joined to the cluster by one command: then a single unit is the node.

use anyhow::{Context, Result, ensure};

use super::picture::Picture;
use super::units::Units;
use super::{UNITS, await_node, guest, web};
use crate::controlplane::{ADDRESS, TOKEN};
use crate::kube::Kube;
use crate::scenario::Stage;
use crate::vm::{Machine, PATIENCE};

const NODE: &str = "vm-3";
const UNIT: Units = Units("berth-agent");

pub(super) fn tell(stage: &Stage, machine: &mut Machine) -> Result<()> {
    let kube = stage.kube();
    machine.run(&format!("systemctl disable --now {} && rm -r /etc/kubernetes /var/lib/kubelet", UNITS.0))?;
    kube.delete_within(&[&format!("node/{}", super::NODE)], PATIENCE)?;
    stage.plane().admit_nodes()?;
    place_authority(stage, &kube)?;
    let hash = stage.plane().ca_hash()?;
    machine.run(&format!(
        "berth join {ADDRESS}:6443 --token {TOKEN} --discovery-token-ca-cert-hash {hash} --node-name {NODE} --node-ip {}",
        guest::GUEST
    ))?;
    await_node(&kube, machine, NODE)?;
    stage.say("berth join has made the guest a node, as a unit of systemd's");

    kube.apply(&web(stage.registry()))?;
    let before = Picture::await_ready(&kube, machine)?;
    UNIT.hold_no_shim(machine)?;
    UNIT.restart(machine, "restart")?;
    before.await_unchanged(&kube, machine).context("systemctl restart berth-agent")?;
    let status = machine.run("berth status")?;
    ensure!(status.contains(NODE), "berth status says {status}");
    stage.say("systemctl restart berth-agent: the same processes, and the pods stayed Ready");

    kube.delete_within(&["deployment/web"], PATIENCE)?;
    machine.run("berth leave")?;
    let active = machine.run("systemctl is-active berth-agent || true")?;
    ensure!(active.trim() != "active", "after berth leave the unit is {active}");
    let left =
        machine.run(&format!("{}; ls -d /etc/kubernetes/* /var/lib/kubelet/* 2>/dev/null; true", super::LEFT))?;
    ensure!(left.trim().is_empty(), "berth leave has left {left}");
    stage.say("berth leave has stopped the unit and removed what was installed");
    Ok(())
}

/// kubeadm tells nodes that the authority is where it is on the control plane, which here is a folder of this machine.
fn place_authority(stage: &Stage, kube: &Kube) -> Result<()> {
    let map = kube.run(&["get", "configmap", "kubelet-config", "--namespace=kube-system", "-o", "json"])?;
    let here = stage.plane().ca().display().to_string();
    ensure!(map.contains(&here), "kubelet-config does not name {here}: {map}");
    kube.apply(&map.replace(&here, "/etc/kubernetes/pki/ca.crt"))
}
