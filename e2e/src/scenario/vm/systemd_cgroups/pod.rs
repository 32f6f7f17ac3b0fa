//! Pods of a kubelet that hears from `berth cri` that systemd makes cgroups: it makes the slices, Berth the scopes.

use anyhow::{Context, Result, ensure};

use super::guest;
use crate::scenario::Stage;
use crate::vm::{Initramfs, Machine, PATIENCE};
use crate::{cni, kube, paths, registry, wait};

const NODE: &str = "vm-4";

/// Nothing is said of the driver, which would be cgroupfs then: the runtime's word counts (RuntimeConfig).
const KUBELET: &str = "containerRuntimeEndpoint: unix:///run/berth/cri.sock
failSwapOn: false
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%}
";

/// A service's own cgroup is systemd's to clear away, and shims are not in it.
const RUN: &str = "systemd-run --quiet --collect --property=KillMode=process";

/// Prints what pods have left behind.
const LEFT: &str = "systemctl list-units --all --plain --no-legend 'cri-berth-*' 'kubepods-*pod*.slice'; \
    find /sys/fs/cgroup -name 'cri-berth-*' -o -name 'kubepods-*pod*'; pgrep berth-shim; ls /run/berth/sandboxes; true";

pub(super) fn put(image: &mut Initramfs, stage: &Stage) -> Result<()> {
    guest::put_node(image, stage, NODE, KUBELET)?;
    image.program(&paths::control_plane_bin().join("kubelet"), "usr/bin/kubelet")?;
    image.put("etc/berth/config.toml", 0o644, b"cgroup_driver = \"systemd\"\n");
    image.put("etc/cni/net.d/10-pods.conflist", 0o644, cni::network("pods0", "10.88.0.0/16").as_bytes());
    image.put("etc/hostname", 0o644, format!("{NODE}\n").as_bytes());
    Ok(())
}

pub(super) fn tell(stage: &Stage, machine: &mut Machine) -> Result<()> {
    machine.run(guest::NETWORK)?;
    let refused = machine.run("! berth cri --cgroup-driver lxc 2>&1")?;
    ensure!(refused.contains("--cgroup-driver"), "said {refused:?}");
    start_runtime(machine)?;
    machine.run(&format!(
        "{RUN} --unit=kubelet kubelet --config /var/lib/kubelet/config.yaml --kubeconfig /etc/kubernetes/kubelet.conf \
         --hostname-override {NODE} --node-ip {}",
        guest::GUEST
    ))?;
    let kube = stage.kube();
    wait::until_true("the node is Ready", PATIENCE * 2, || {
        machine.check()?;
        Ok(kube.get("node", NODE)?.is_some_and(|node| kube::ready(&node)))
    })?;
    stage.say("the kubelet's node is Ready");

    let image = stage.registry().name(registry::BUSYBOX);
    kube.apply(&pod("calm", &image, "sleep 10000", "Always"))?;
    wait::until_true("the pod is Ready", PATIENCE, || {
        machine.check()?;
        Ok(kube.get("pod", "calm")?.is_some_and(|pod| kube::ready(&pod)))
    })
    .with_context(|| kube.run(&["get", "pods,events", "-o", "wide"]).unwrap_or_default())?;
    let pod_object = kube.get("pod", "calm")?.context("the pod is gone")?;
    let uid = pod_object["metadata"]["uid"].as_str().context("no uid")?.replace('-', "_");
    let id = kube::container_id(&pod_object).context("no container")?;
    let id = id.rsplit('/').next().unwrap_or_default();
    let (unit, slice) = (format!("cri-berth-{id}.scope"), format!("kubepods-burstable-pod{uid}.slice"));
    let path = format!("/kubepods.slice/kubepods-burstable.slice/{slice}/{unit}");
    for (name, value) in [
        ("ActiveState", "active"),
        ("Slice", slice.as_str()),
        ("ControlGroup", path.as_str()),
        ("Delegate", "yes"),
        ("MemoryMax", "67108864"),
    ] {
        let said = machine.run(&format!("systemctl show --property={name} --value {unit}"))?;
        ensure!(said.trim() == value, "{name} of {unit} is {said:?}, not {value}");
    }
    let before = machine.run(&format!("cat /sys/fs/cgroup{path}/memory.max /sys/fs/cgroup{path}/cgroup.procs"))?;
    ensure!(before.starts_with("67108864\n") && before.lines().count() == 2, "the scope has {before:?}");
    stage.say("the runtime has told the kubelet of its driver: a pod's container is a scope in the slice that the kubelet made");

    machine.run(
        "systemctl kill --signal=KILL berth-runtime && while systemctl is-active -q berth-runtime; do sleep 0.2; done",
    )?;
    machine.run("systemctl daemon-reexec; sleep 1")?;
    start_runtime(machine)?;
    let after = machine.run(&format!("cat /sys/fs/cgroup{path}/memory.max /sys/fs/cgroup{path}/cgroup.procs"))?;
    ensure!(after == before, "before {before:?}, after {after:?}");
    stage.say("the runtime killed and systemd executed anew: the same process in the same scope");

    kube.apply(&pod("greedy", &image, "tail /dev/zero", "Never"))?;
    let reason = wait::until("the greedy pod ends", PATIENCE, || {
        machine.check()?;
        let pod = kube.get("pod", "greedy")?.context("the pod is gone")?;
        Ok(kube::container(&pod)["state"]["terminated"]["reason"].as_str().map(str::to_owned))
    })?;
    ensure!(reason == "OOMKilled", "the greedy pod has ended with {reason}");
    stage.say("a container that wants too much memory is OOMKilled, although systemd removes its cgroup at once");

    kube.delete_within(&["pod/calm", "pod/greedy"], PATIENCE)?;
    wait::until_true("nothing is left", PATIENCE, || {
        let left = machine.run(LEFT)?;
        ensure!(left.trim().is_empty(), "left: {left}");
        Ok(true)
    })?;
    stage.say("the pods are gone, and no scope, slice, shim or cgroup of theirs is left");
    Ok(())
}

fn start_runtime(machine: &mut Machine) -> Result<()> {
    machine.run("rm -f /run/berth/cri.sock")?;
    machine.run(&format!("{RUN} --unit=berth-runtime berth cri"))?;
    machine.run("until [ -S /run/berth/cri.sock ]; do sleep 0.5; done").map(drop)
}

fn pod(name: &str, image: &str, command: &str, restart: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: {NODE}
  restartPolicy: {restart}
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: {image}
    resources: {{limits: {{memory: 64Mi}}, requests: {{cpu: 50m}}}}
    command: [sh, -c, {command:?}]
"
    )
}
