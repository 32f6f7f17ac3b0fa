//! The first pod on another kernel with cgroup v2 alone: the node is a virtual machine, the control plane is outside.

use std::fs;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Stage;
use crate::controlplane::{ADDRESS, BRIDGE};
use crate::kube::{self, Kube};
use crate::vm::{Initramfs, Kernel, Machine};
use crate::{node, paths, registry, wait};

const NODE: &str = "vm-1";
const GUEST: &str = "10.251.0.2";
/// The guest waits for a connection here before it stops the node.
const STOP: &str = "10.251.0.2:9999";
/// Everything in the guest is some 25 times slower than here.
const PATIENCE: Duration = Duration::from_secs(240);

/// What the guest does: a node, and at its end what is left of it.
const WORK: &str = "hostname vm-1
ip link set eth0 up
ip address add 10.251.0.2/24 dev eth0
ip route add default via 10.251.0.1
berth agent --config /etc/berth/kubelet.yaml --kubeconfig /etc/berth/kubeconfig --hostname-override vm-1 \\
  --node-ip 10.251.0.2 --pod-network=bridge --registry-config-dir /etc/berth/certs.d &
agent=$!
nc -l -p 9999 </dev/null >/dev/null
for left in $(ls /run/berth/sandboxes /run/berth/netns | grep -v :) $(find /sys/fs/cgroup -type d -name 'pod*') \\
  $(pidof berth-shim) $(grep -o ' /var/lib/kubelet/pods[^ ]*' /proc/self/mountinfo); do echo \"berth-vm: left behind: $left\"; done
kill $agent
wait $agent
echo \"berth-vm: the agent ended with $?\"
";

/// Plays the scenario; call it in a house.
///
/// # Errors
/// What was not as it should be, with the end of the guest's console.
pub fn play() -> Result<()> {
    let stage = Stage::set("vm-first-pod", "10.251.0.1:5000")?;
    let kernel = Kernel::fetch()?;
    let image = initramfs(&stage, &kernel)?;
    let mut machine = Machine::boot(&kernel, &image, &stage.dir().join("vm"), Some(BRIDGE))?;
    machine.await_line("berth-vm: booted", PATIENCE)?;
    stage.say("the guest's kernel is up");
    tell(&stage, &mut machine).with_context(|| machine.end_of_console())?;
    drop(machine);
    stage.clear()
}

fn initramfs(stage: &Stage, kernel: &Kernel) -> Result<Vec<u8>> {
    let mut image = Initramfs::new(kernel, WORK)?;
    image.program(&paths::berth("berth"), "usr/bin/berth")?;
    let kubeconfig = stage.plane().node_kubeconfig(NODE)?;
    image.put("etc/berth/kubeconfig", 0o600, &fs::read(kubeconfig)?);
    image.put("etc/berth/ca.crt", 0o644, &fs::read(stage.plane().ca())?);
    let configuration = node::kubelet_configuration("/etc/berth/ca.crt".as_ref());
    image.put("etc/berth/kubelet.yaml", 0o644, configuration.as_bytes());
    let registry = stage.registry().address();
    let hosts = format!("server = \"http://{registry}\"\n");
    image.put(&format!("etc/berth/certs.d/{registry}/hosts.toml"), 0o644, hosts.as_bytes());
    image.put("etc/resolv.conf", 0o644, format!("nameserver {ADDRESS}\n").as_bytes());
    Ok(image.done())
}

fn tell(stage: &Stage, machine: &mut Machine) -> Result<()> {
    let kube = stage.kube();
    wait::until_true("the guest's node is Ready", PATIENCE, || {
        machine.check()?;
        Ok(kube.get("node", NODE)?.is_some_and(|node| kube::ready(&node)))
    })?;
    stage.say("the guest's node is Ready");
    kube.apply(&pod(&stage.registry().name(registry::BUSYBOX)))?;
    let pod = wait::until("the pod is Ready", PATIENCE, || {
        machine.check()?;
        Ok(kube.get("pod", "first")?.filter(kube::ready))
    })
    .with_context(|| kube.run(&["get", "pods,events", "-o", "wide"]).unwrap_or_default())?;
    stage.say("the pod is Ready");
    let log = wait::until("the pod's log", PATIENCE, || {
        Ok(Some(kube.run(&["logs", "first"])?).filter(|log| !log.is_empty()))
    })?;
    // The limit is read from the container's own cgroup, where only v2 has a file of that name.
    ensure!(log.starts_with("kernel 6.1.") && log.contains("memory 67108864"), "the pod says {log:?}");
    ensure!(pod["status"]["hostIP"] == GUEST, "the pod's host is {}", pod["status"]["hostIP"]);
    stage.say("its log came through the API server, and its memory limit is in its cgroup");
    delete(&kube)?;
    stage.say("the pod is gone");
    drop(TcpStream::connect(STOP).context("the guest does not wait for its end")?);
    machine.await_line("berth-vm: done", PATIENCE)?;
    let left = machine.lines_with("berth-vm: left behind")?;
    ensure!(left.is_empty(), "{}", left.join("\n"));
    ensure!(!machine.lines_with("the agent ended with 0")?.is_empty(), "the agent did not end well");
    stage.say("nothing is left behind in the guest");
    machine.await_end(PATIENCE)
}

fn delete(kube: &Kube) -> Result<()> {
    kube.run(&["delete", "pod", "first", "--wait=false"])?;
    wait::until_true("the pod is gone", PATIENCE, || Ok(kube.get("pod", "first")?.is_none()))
}

fn pod(image: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: first}}
spec:
  terminationGracePeriodSeconds: 20
  containers:
  - name: main
    image: {image}
    resources: {{limits: {{memory: 64Mi}}}}
    command:
    - sh
    - -c
    - echo kernel $(uname -r) memory $(cat /sys/fs/cgroup/memory.max); trap 'exit 0' TERM; sleep 1000 & wait
"
    )
}
