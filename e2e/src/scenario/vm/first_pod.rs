//! The first pod on another kernel with cgroup v2 alone.

use anyhow::{Context, Result, ensure};

use super::guest::{self, GUEST};
use crate::controlplane::BRIDGE;
use crate::kube;
use crate::scenario::Stage;
use crate::vm::{Hardware, Initramfs, Kernel, Machine, PATIENCE};
use crate::{registry, wait};

const NODE: &str = "vm-1";

/// Starts the node; what follows is told to the guest command by command.
const WORK: &str = "hostname vm-1
berth agent --config /var/lib/kubelet/config.yaml --kubeconfig /etc/kubernetes/kubelet.conf --hostname-override vm-1 \\
  --node-ip 10.251.0.2 --pod-network=bridge &
agent=$!
channel
";

/// Prints what a pod has left behind.
const LEFT: &str = "ls /run/berth/sandboxes /run/berth/netns | grep -v :; find /sys/fs/cgroup -type d -name 'pod*'; \
    pidof berth-shim; grep -o ' /var/lib/kubelet/pods[^ ]*' /proc/self/mountinfo; true";

/// Plays the scenario; call it in a house.
///
/// # Errors
/// What was not as it should be, with the end of the guest's console.
pub fn play() -> Result<()> {
    let stage = Stage::set("vm-first-pod", "10.251.0.1:5000")?;
    let kernel = Kernel::fetch()?;
    let mut image = Initramfs::alone(&kernel, &format!("{}\n{WORK}", guest::NETWORK))?;
    guest::put_node(&mut image, &stage, NODE, "")?;
    let hardware = Hardware { bridge: Some(BRIDGE), disk: None };
    let mut machine = Machine::boot(&kernel, &image.done(), &stage.dir().join("vm"), &hardware)?;
    tell(&stage, &mut machine).with_context(|| machine.end_of_console())?;
    machine.shut_down()?;
    stage.say("the guest is off");
    stage.clear()
}

fn tell(stage: &Stage, machine: &mut Machine) -> Result<()> {
    let kernel = machine.run("uname -r")?;
    stage.say(&format!("the guest's kernel {} is up", kernel.trim()));
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
    // A node of a device that it may not use it can make (CAP_MKNOD), not open; the null device it can.
    let expected = format!("kernel {} memory 67108864 loop Operation not permitted", kernel.trim());
    ensure!(log.trim() == expected, "the pod says {log:?}");
    ensure!(pod["status"]["hostIP"] == GUEST, "the pod's host is {}", pod["status"]["hostIP"]);
    stage.say("its log came through the API server, its memory limit is in its cgroup, and a device is not its own");
    kube.delete_within(&["pod/first"], PATIENCE)?;
    stage.say("the pod is gone");
    let left = machine.run(LEFT)?;
    ensure!(left.trim().is_empty(), "left behind in the guest: {left}");
    let ended = machine.run("kill $agent; wait $agent; echo $?")?;
    ensure!(ended.trim() == "0", "the agent ended with {ended}");
    stage.say("nothing is left behind in the guest");
    Ok(())
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
    - echo kernel $(uname -r) memory $(cat /sys/fs/cgroup/memory.max) loop $(mknod /loop b 7 0 &&
      dd if=/loop of=/dev/null count=1 2>&1 | grep -o 'Operation not permitted'); trap 'exit 0' TERM; sleep 1000 & wait
"
    )
}
