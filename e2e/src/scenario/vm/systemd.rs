//! A node that systemd runs, by the units that Berth ships: what happens to these touches no container.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::guest;
use crate::controlplane::BRIDGE;
use crate::kube::{self, Kube};
use crate::scenario::Stage;
use crate::vm::{self, Hardware, Initramfs, Kernel, Machine, PATIENCE};
use crate::{command, http, registry, wait};

const NODE: &str = "vm-2";
const UNITS: &str = "berth-runtime kubelet";
const REPLICAS: usize = 2;
/// For what takes a moment.
const SOON: Duration = Duration::from_secs(30);

const NETWORK_UNIT: &str = "[Unit]
Description=The guest's address
Before=network-online.target
[Service]
Type=oneshot
RemainAfterExit=yes
";

/// Prints each process of pods and of their shims with the moment of its start, and the limits that pods have.
const PROCESSES: &str = "cd /sys/fs/cgroup && cat cgroup.subtree_control; \
    for f in $(find kubepods berth -name cgroup.procs | sort); do for p in $(cat $f); do \
    echo $f $p $(cut -d' ' -f22 /proc/$p/stat); done; done; \
    grep -rs . kubepods --include=memory.max --include=cpu.weight --include=pids.max | sort";

/// Prints what pods have left behind.
const LEFT: &str = "ls /run/berth/sandboxes /run/berth/netns | grep -v :; find /sys/fs/cgroup -type d -name 'pod*'; \
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
    let story = tell(&stage, &mut machine);
    if story.is_err() {
        eprintln!("{}", machine.run("journalctl --no-pager -o cat -n 60 -u berth-runtime -u kubelet").unwrap_or_default());
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
    let arguments = format!("--hostname-override={NODE} --node-ip={} --pod-network=bridge", guest::GUEST);
    let arguments = format!("KUBELET_KUBEADM_ARGS=\"{arguments}\"\n");
    image.put("var/lib/kubelet/kubeadm-flags.env", 0o644, arguments.as_bytes());
    image.put("etc/hostname", 0o644, format!("{NODE}\n").as_bytes());
    image.unit("guest-network.service", &format!("{NETWORK_UNIT}ExecStart=/bin/sh -c '{}'\n", guest::NETWORK));
    image.link("etc/systemd/system/network-online.target.wants/guest-network.service", "../guest-network.service");
    Ok(())
}

fn tell(stage: &Stage, machine: &mut Machine) -> Result<()> {
    let version = machine.run("systemctl --version | head -n 1")?;
    stage.say(&format!("the guest is up: {}", version.trim()));
    let complaints = machine.run("cd /usr/lib/systemd/system && systemd-analyze verify --man=no berth-*.service kubelet.service")?;
    ensure!(complaints.is_empty(), "systemd does not like the units: {complaints}");
    machine.run(&format!("systemctl enable --now {UNITS}"))?;
    let kube = stage.kube();
    await_node(&kube, machine)?;
    stage.say("systemd likes the units, and the node is Ready");

    kube.apply(&web(&stage.registry().name(registry::WEB)))?;
    let before = await_pods(&kube, machine)?;
    route_to_pods(&kube)?;
    pods_answer(&before)?;
    alone_in_their_cgroups(machine)?;
    stage.say(&format!("{REPLICAS} pods are Ready, and no unit's cgroup holds a shim"));

    for (act, what) in [("restart", "systemctl restart"), ("kill --signal=KILL", "kill -9 of all that is in the units' cgroups")] {
        let pids = main_pids(machine)?;
        machine.run(&format!("systemctl {act} {UNITS}"))?;
        await_units(machine, &pids)?;
        nothing_has_changed(&kube, machine, &before).context(what)?;
        stage.say(&format!("{what}: the same processes, and the pods stayed Ready"));
    }

    let pids = main_pids(machine)?;
    // Without units that ask for controllers, systemd would switch these off when it looks at its cgroups again.
    machine.run(&format!("systemctl stop {UNITS} && systemctl daemon-reexec && sleep 1"))?;
    let processes = machine.run(PROCESSES)?;
    ensure!(processes == before.processes, "processes before\n{}\nwith both units stopped\n{processes}", before.processes);
    pods_answer(&before)?;
    stage.say("systemctl stop: the pods run on and answer, also with systemd executed anew");
    machine.run(&format!("systemctl start {UNITS}"))?;
    await_units(machine, &pids)?;
    works_again(stage, &kube, machine)?;
    nothing_has_changed(&kube, machine, &before).context("systemctl start")?;
    stage.say("systemctl start: the pods are adopted, and a new one comes and goes");

    journal_is_structured(machine)?;
    stage.say("the journal has levels and fields, and no left-over process");
    delete(&kube, &["deployment/web"])?;
    wait::until_true("the pods are gone", PATIENCE, || Ok(kube.list("pods", "")?.is_empty()))?;
    let left = machine.run(LEFT)?;
    ensure!(left.trim().is_empty(), "left behind in the guest: {left}");
    stage.say("nothing is left behind in the guest");
    Ok(())
}

/// The pods as the cluster sees them, and their processes as the guest sees them.
#[derive(Debug, PartialEq, Eq)]
struct Picture {
    pods: Vec<Pod>,
    processes: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Pod {
    name: String,
    address: String,
    container: String,
    restarts: u64,
    /// Since when it is Ready: another moment if it was not in between.
    ready: String,
}

impl Picture {
    /// `None` when not all pods are Ready.
    fn take(kube: &Kube, machine: &mut Machine) -> Result<Option<Self>> {
        let pods: Option<Vec<Pod>> = kube.list("pods", "app=web")?.iter().map(Pod::see).collect();
        let Some(mut pods) = pods.filter(|pods| pods.len() == REPLICAS) else { return Ok(None) };
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Some(Self { pods, processes: machine.run(PROCESSES)? }))
    }
}

impl Pod {
    fn see(pod: &Value) -> Option<Self> {
        let conditions = pod["status"]["conditions"].as_array()?;
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready" && condition["status"] == "True")?;
        Some(Self {
            name: kube::name(pod),
            address: pod["status"]["podIP"].as_str()?.to_owned(),
            container: kube::container_id(pod)?,
            restarts: kube::container(pod)["restartCount"].as_u64()?,
            ready: ready["lastTransitionTime"].as_str()?.to_owned(),
        })
    }
}

fn await_node(kube: &Kube, machine: &mut Machine) -> Result<()> {
    wait::until_true("the guest's node is Ready", PATIENCE, || {
        machine.check()?;
        let node = kube.get("node", NODE)?.unwrap_or_default();
        Ok(kube::ready(&node) && node["spec"]["podCIDR"].is_string())
    })
}

fn await_pods(kube: &Kube, machine: &mut Machine) -> Result<Picture> {
    wait::until("the pods are Ready", PATIENCE, || {
        machine.check()?;
        Picture::take(kube, machine)
    })
    .with_context(|| kube.run(&["get", "pods,events", "-o", "wide"]).unwrap_or_default())
}

/// Lets this side reach the pods as another node would.
fn route_to_pods(kube: &Kube) -> Result<()> {
    let node = kube.get("node", NODE)?.context("the node is gone")?;
    let network = node["spec"]["podCIDR"].as_str().context("the node has no pod CIDR")?;
    let mut ip = std::process::Command::new("ip");
    command::output(ip.args(["route", "replace", network, "via", guest::GUEST])).map(drop)
}

fn pods_answer(picture: &Picture) -> Result<()> {
    for pod in &picture.pods {
        let answer = http::request(&format!("{}:80", pod.address), "GET", "/", &[], b"")?;
        let body = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status == 200 && body.trim() == pod.name, "{} answers {body:?}", pod.name);
    }
    Ok(())
}

/// systemd would take a shim in a unit's cgroup for a process of the unit.
fn alone_in_their_cgroups(machine: &mut Machine) -> Result<()> {
    let pids = main_pids(machine)?;
    for (unit, pid) in UNITS.split(' ').zip(pids) {
        let inside = machine.run(&format!("cat /sys/fs/cgroup/system.slice/{unit}.service/cgroup.procs"))?;
        ensure!(inside.trim() == pid, "{unit} is process {pid}, and its cgroup holds {inside:?}");
    }
    Ok(())
}

fn main_pids(machine: &mut Machine) -> Result<Vec<String>> {
    let pids = machine.run(&format!("systemctl show --property=MainPID --value {UNITS}"))?;
    Ok(pids.split_whitespace().map(str::to_owned).collect())
}

/// Waits until both units run as other processes than those.
fn await_units(machine: &mut Machine, before: &[String]) -> Result<()> {
    wait::until_true("both units run again", PATIENCE, || {
        let now = main_pids(machine)?;
        let active = machine.run(&format!("systemctl is-active {UNITS} || true"))?;
        let fresh = now.iter().zip(before).all(|(now, before)| now != before);
        Ok(fresh && active.split_whitespace().all(|state| state == "active"))
    })
}

/// A class of pods gets its weight back pod by pod; what else can differ does so for good.
fn nothing_has_changed(kube: &Kube, machine: &mut Machine, before: &Picture) -> Result<()> {
    pods_answer(before)?;
    wait::until_true("the pods are what they were", SOON, || {
        let after = Picture::take(kube, machine)?.context("not all pods are Ready")?;
        ensure!(after == *before, "before {before:#?}\nafter {after:#?}");
        Ok(true)
    })
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
    delete(kube, &["pod/after"])
}

fn delete(kube: &Kube, objects: &[&str]) -> Result<()> {
    let limit = format!("--timeout={}s", PATIENCE.as_secs());
    let mut arguments = vec!["delete", "--wait=true", &limit];
    arguments.extend(objects);
    kube.run(&arguments).map(drop)
}

fn journal_is_structured(machine: &mut Machine) -> Result<()> {
    let journal = machine.run("journalctl --no-pager -o json --output-fields=MESSAGE,PRIORITY,_COMM -u berth-runtime -u kubelet")?;
    let entries = journal.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let left = entries.iter().find(|entry| text(entry, "MESSAGE").contains("left-over process"));
    ensure!(left.is_none(), "systemd found {left:?}");
    for (program, words, field) in [("berth", "serving the CRI", "socket=/run/berth/cri.sock"), ("kubelet", "using runtime", "endpoint=")] {
        let line = entries.iter().find(|entry| entry["_COMM"] == program && text(entry, "MESSAGE").contains(words));
        let line = line.with_context(|| format!("{program} has not logged {words:?}:\n{}", command::tail(&journal)))?;
        ensure!(line["PRIORITY"] == "6" && text(line, "MESSAGE").contains(field), "{program} has logged {line}");
    }
    Ok(())
}

fn web(image: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {REPLICAS}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: web
        image: {image}
        resources: {{limits: {{memory: 64Mi}}, requests: {{cpu: 50m}}}}
"
    )
}
