//! A node that systemd runs, by the units that Berth ships: what happens to these touches no container.

mod joined;
mod picture;
mod units;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::guest;
use crate::controlplane::BRIDGE;
use crate::kube::{self, Kube};
use crate::registry::{self, Registry};
use crate::scenario::{Stage, web};
use crate::vm::{self, Hardware, Initramfs, Kernel, Machine, PATIENCE};
use crate::{command, ip, wait};
use picture::{Picture, REPLICAS};
use units::Units;

const NODE: &str = "vm-2";
const UNITS: Units = Units("berth-runtime kubelet");

const NETWORK_UNIT: &str = "[Unit]
Description=The guest's address
Before=network-online.target
[Service]
Type=oneshot
RemainAfterExit=yes
";

/// Prints what pods have left behind.
const LEFT: &str = "ls /run/berth/sandboxes /run/berth/netns 2>/dev/null | grep -v :; find /sys/fs/cgroup -type d -name 'pod*'; \
    find /sys/fs/cgroup/berth -mindepth 1 -type d 2>/dev/null; grep -o ' /var/lib/kubelet/pods[^ ]*' /proc/self/mountinfo; true";

/// Plays the scenario; call it in a house.
///
/// # Errors
/// What was not as it should be, with the end of the guest's console and journal.
pub fn play() -> Result<()> {
    let stage = Stage::set("vm-systemd", "10.251.0.1:5000")?;
    let kernel = Kernel::fetch()?;
    let disk = vm::fetch_debian()?;
    let mut image = Initramfs::with_disk(&kernel)?;
    fill(&mut image, &stage)?;
    let hardware = Hardware { bridge: Some(BRIDGE), disk: Some(&disk) };
    let mut machine = Machine::boot(&kernel, &image.done(), &stage.dir().join("vm"), &hardware)?;
    let story = tell(&stage, &mut machine).and_then(|()| joined::tell(&stage, &mut machine));
    if story.is_err() {
        eprintln!(
            "{}",
            machine
                .run("journalctl --no-pager -o cat -n 60 -u berth-runtime -u kubelet -u berth-agent")
                .unwrap_or_default()
        );
    }
    story.with_context(|| machine.end_of_console())?;
    machine.shut_down()?;
    stage.say("the guest is off");
    stage.clear()
}

fn fill(image: &mut Initramfs, stage: &Stage) -> Result<()> {
    guest::put_node(image, stage, NODE, "containerRuntimeEndpoint: unix:///run/berth/cri.sock\n")?;
    guest::put_units(image)?;
    image.link("usr/bin/kubelet", "berth");
    let arguments = format!("KUBELET_KUBEADM_ARGS=\"--hostname-override={NODE} --node-ip={}\"\n", guest::GUEST);
    image.put("var/lib/kubelet/kubeadm-flags.env", 0o644, arguments.as_bytes());
    image.put("etc/default/kubelet", 0o644, b"KUBELET_EXTRA_ARGS=--pod-network=bridge\n");
    image.put("etc/hostname", 0o644, format!("{NODE}\n").as_bytes());
    image.unit("guest-network.service", &format!("{NETWORK_UNIT}ExecStart=/bin/sh -c '{}'\n", guest::NETWORK));
    image.link("etc/systemd/system/network-online.target.wants/guest-network.service", "../guest-network.service");
    Ok(())
}

fn tell(stage: &Stage, machine: &mut Machine) -> Result<()> {
    let version = machine.run("systemctl --version | head -n 1")?;
    stage.say(&format!("the guest is up: {}", version.trim()));
    let complaints =
        machine.run("cd /usr/lib/systemd/system && systemd-analyze verify --man=no berth-*.service kubelet.service")?;
    ensure!(complaints.is_empty(), "systemd does not like the units: {complaints}");
    machine.run(&format!("systemctl enable --now {}", UNITS.0))?;
    let kube = stage.kube();
    await_node(&kube, machine, NODE)?;
    stage.say("systemd likes the units, and the node is Ready");

    kube.apply(&web(stage.registry()))?;
    let before = Picture::await_ready(&kube, machine)?;
    before.answers()?;
    UNITS.hold_no_shim(machine)?;
    stage.say(&format!("{REPLICAS} pods are Ready, and no unit's cgroup holds a shim"));

    UNITS.restart(machine, "restart")?;
    before.await_unchanged(&kube, machine).context("systemctl restart")?;
    stage.say("systemctl restart: the same processes, and the pods stayed Ready");
    UNITS.restart(machine, "kill --signal=KILL")?;
    before.await_unchanged(&kube, machine).context("systemctl kill")?;
    stage.say("kill -9 of all that is in the units' cgroups: the same again");

    // Without units that ask for controllers, systemd would switch these off when it looks at its cgroups again.
    machine.run(&format!("systemctl stop {} && systemctl daemon-reexec && sleep 1", UNITS.0))?;
    before.runs_on(machine).context("systemctl stop")?;
    stage.say("systemctl stop: the pods run on and answer, also with systemd executed anew");
    UNITS.restart(machine, "start")?;
    works_again(stage, &kube, machine)?;
    before.await_unchanged(&kube, machine).context("systemctl start")?;
    stage.say("systemctl start: the pods are adopted, and a new one comes and goes");

    journal_is_structured(machine)?;
    stage.say("the journal has levels and fields, and no left-over process");
    kube.delete_within(&["deployment/web"], PATIENCE)?;
    wait::until_true("the pods are gone", PATIENCE, || Ok(kube.list("pods", "")?.is_empty()))?;
    let left = machine.run(LEFT)?;
    ensure!(left.trim().is_empty(), "left behind in the guest: {left}");
    stage.say("nothing is left behind in the guest");
    Ok(())
}

/// Waits until the node is Ready and its pods can be reached from here.
fn await_node(kube: &Kube, machine: &mut Machine, name: &str) -> Result<()> {
    let node = wait::until(&format!("node {name} is Ready"), PATIENCE, || {
        machine.check()?;
        Ok(kube.get("node", name)?.filter(|node| kube::ready(node) && kube::pod_cidr(node).is_ok()))
    })?;
    ip::route_to_pods(&node, guest::GUEST)
}

/// A pod that comes and goes shows that agent and runtime have taken up their work.
fn works_again(stage: &Stage, kube: &Kube, machine: &mut Machine) -> Result<()> {
    kube.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: after}}\nspec:\n  terminationGracePeriodSeconds: 5\n  containers:\n  \
         - {{name: web, image: {}}}\n",
        stage.registry().name(registry::WEB)
    ))?;
    wait::until_true("a new pod is Ready", PATIENCE, || {
        machine.check()?;
        Ok(kube.get("pod", "after")?.is_some_and(|pod| kube::ready(&pod)))
    })?;
    kube.delete_within(&["pod/after"], PATIENCE)
}

fn journal_is_structured(machine: &mut Machine) -> Result<()> {
    let journal = machine
        .run("journalctl --no-pager -o json --output-fields=MESSAGE,PRIORITY,_COMM -u berth-runtime -u kubelet")?;
    let entries = journal.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let left = entries.iter().find(|entry| text(entry, "MESSAGE").contains("left-over process"));
    ensure!(left.is_none(), "systemd found {left:?}");
    for (program, words, field) in
        [("berth", "serving the CRI", "socket=/run/berth/cri.sock"), ("kubelet", "using runtime", "endpoint=")]
    {
        let line = entries.iter().find(|entry| entry["_COMM"] == program && text(entry, "MESSAGE").contains(words));
        let line = line.with_context(|| format!("{program} has not logged {words:?}:\n{}", command::tail(&journal)))?;
        ensure!(line["PRIORITY"] == "6" && text(line, "MESSAGE").contains(field), "{program} has logged {line}");
    }
    Ok(())
}

fn web(registry: &Registry) -> String {
    web::deployment(registry, REPLICAS) + "        resources: {limits: {memory: 64Mi}, requests: {cpu: 50m}}\n"
}
