//! A node that kubeadm itself makes, with Berth as its runtime and its kubelet.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::node::{self, await_ready, remove_route};
use super::{Stage, workload};
use crate::controlplane::{ADDRESS, TOKEN};
use crate::daemon::Daemon;
use crate::house::cgroups;
use crate::kube::Kube;
use crate::room::Room;
use crate::{command, paths, wait};

const SOCKET: &str = "unix:///run/berth/cri.sock";
/// Of kubeadm's checks these concern the machine that the test runs on: its cgroup version and kernel configuration.
const IGNORED: &str = "SystemVerification";
/// Where kind's kubelets, and so ours, put pods.
const CGROUP_ROOT: &str = "kubelet";
/// Where packages put units.
const UNITS: &str = "/usr/lib/systemd/system";
const SYSTEMCTL: &str = "/usr/local/bin/systemctl";
/// Everything of a kubeadm node that an operator has installed before.
const INSTALLED: &[&str] = &["/usr/bin/kubelet", SYSTEMCTL];

/// As much of systemd as kubeadm asks for: one service, by the units as they are packaged. The main process alone is told
/// to end (KillMode=process).
const SYSTEMCTL_SCRIPT: &str = r#"#!/bin/sh
unit=/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf
running() { [ -s /run/kubelet.pid ] && kill -0 "$(cat /run/kubelet.pid)" 2>/dev/null; }
stop() {
  running && kill "$(cat /run/kubelet.pid)"
  while running; do sleep 0.1; done
  rm -f /run/kubelet.pid
}
start() {
  running && return
  # shellcheck disable=SC2016
  environment=$(sed -n 's/^Environment="\([A-Z_]*\)=\(.*\)"$/\1="\2"/p' $unit)
  eval "$environment"
  for file in $(sed -n 's/^EnvironmentFile=-//p' $unit); do [ ! -e "$file" ] || . "$file"; done
  line=$(sed -n 's/^ExecStart=\(.\)/\1/p' $unit | tail -n 1)
  eval "set -- $line"
  setsid "$@" </dev/null >>/var/log/kubelet.log 2>&1 &
  echo $! >/run/kubelet.pid
}
case "$1" in
  daemon-reload | is-enabled) ;;
  is-active) if running; then echo active; else echo inactive; exit 3; fi ;;
  status) echo "Loaded: loaded ($unit)" ;;
  start) start ;;
  stop) stop ;;
  restart) stop; start ;;
  *) echo "systemctl: $1 is not known here" >&2; exit 1 ;;
esac
"#;

/// A room with a node that kubeadm has made.
#[derive(Debug)]
pub(super) struct Node<'a> {
    room: &'a Room,
    runtime: Daemon,
}

/// Installs what packages bring, starts the runtime, and lets kubeadm join.
pub(super) fn join<'a>(stage: &Stage, kube: &Kube, room: &'a Room) -> Result<Node<'a>> {
    install(room)?;
    let log = stage.dir().join(format!("{}-cri.log", room.name()));
    let mut command = room.command("/usr/bin/berth");
    let runtime = room.enter(|| Daemon::start("berth cri", command.args(["cri", "--listen", SOCKET]), &log))?;
    wait::until_true("the runtime's socket is there", node::PATIENCE, || {
        room.enter(|| Ok(Path::new("/run/berth/cri.sock").exists()))
    })?;
    kubeadm(stage, room, &["join", &format!("{ADDRESS}:6443"), "--token", TOKEN, "--cri-socket", SOCKET])
        .with_context(|| kubelet_log(room))?;
    stage.say("kubeadm join is through");
    await_ready(kube, room).with_context(|| kubelet_log(room))?;
    workload::await_pods(kube, "k8s-app=kube-proxy", 2)?;
    stage.say("kubeadm join: the node is Ready and kube-proxy runs on it");
    Ok(Node { room, runtime })
}

fn install(room: &Room) -> Result<()> {
    let units = paths::checkout().join("manifests/systemd");
    room.enter(|| {
        symlink("berth", "/usr/bin/kubelet")?;
        let drop_in = format!("{UNITS}/kubelet.service.d");
        fs::create_dir_all(&drop_in)?;
        fs::copy(units.join("kubelet.service.d/10-kubeadm.conf"), format!("{drop_in}/10-kubeadm.conf"))?;
        fs::create_dir_all("/usr/local/bin")?;
        fs::write(SYSTEMCTL, SYSTEMCTL_SCRIPT)?;
        fs::set_permissions(SYSTEMCTL, Permissions::from_mode(0o755))?;
        Ok(())
    })
}

fn kubeadm(stage: &Stage, room: &Room, arguments: &[&str]) -> Result<()> {
    let mut command = room.command(&paths::control_plane_bin().join("kubeadm").display().to_string());
    command.args(arguments).arg(format!("--ignore-preflight-errors={IGNORED}"));
    if arguments[0] == "join" {
        command.args(["--discovery-token-ca-cert-hash", stage.plane().ca_hash()?]);
    }
    room.enter(|| command::logged(&mut command, &stage.dir().join(format!("kubeadm-{}.log", arguments[0]))))
}

fn kubelet_log(room: &Room) -> String {
    let tail = room.enter(|| Ok(command::tail_of(Path::new("/var/log/kubelet.log"))));
    format!("the end of the kubelet's log:\n{}", tail.unwrap_or_default())
}

/// `kubectl drain` is the operator's; then `kubeadm reset` with the runtime running, and that the node's pods, mounts and
/// files are gone.
pub(super) fn reset(stage: &Stage, kube: &Kube, node: &mut Node<'_>) -> Result<()> {
    let Node { room, runtime } = node;
    kube.run(&["drain", room.name(), "--ignore-daemonsets", "--timeout=60s"])?;
    kubeadm(stage, room, &["reset", "--force", "--cri-socket", SOCKET])?;
    kube.delete(&[&format!("node/{}", room.name())])?;
    runtime.check()?;
    let left = room.enter(|| {
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo")?;
        let mut left: Vec<String> =
            mounts.lines().filter(|line| line.contains(" /var/lib/kubelet/")).map(str::to_owned).collect();
        for folder in ["/run/berth/sandboxes", "/run/berth/netns", "/var/lib/kubelet", "/etc/kubernetes/pki"] {
            left.extend(fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path().display().to_string()));
        }
        left.extend(
            fs::read_dir("/etc/kubernetes")?
                .flatten()
                .map(|e| e.path().display().to_string())
                .filter(|path| path.ends_with(".conf")),
        );
        Ok(left)
    })?;
    ensure!(left.is_empty(), "kubeadm reset has left {}", left.join("\n"));
    runtime.signal(Signal::SIGTERM)?;
    let ended = runtime.wait(node::PATIENCE)?.context("the runtime does not end")?;
    ensure!(ended.success(), "the runtime ended with {ended}");
    remove_route(room)?;
    stage.say("kubeadm reset has removed the pods, their mounts and the node's files");
    Ok(())
}

/// Removes what an operator has installed, and what kubeadm and a runtime leave by design, whichever kubelet it was: empty
/// folders and cgroups, images, and the logs of DaemonSets' pods, which kubeadm removes without their kubelet.
pub(super) fn forget_the_operators_own(room: &Room) -> Result<()> {
    room.enter(|| {
        for path in INSTALLED {
            fs::remove_file(path)?;
        }
        for folder in [
            &format!("{UNITS}/kubelet.service.d"),
            "/etc/kubernetes",
            "/var/lib/kubelet",
            "/var/lib/berth",
            "/run/berth",
            "/var/log/pods",
            "/var/log/containers",
        ] {
            fs::remove_dir_all(folder).with_context(|| (*folder).to_owned())?;
        }
        for folder in ["/var/lib/cni/results", "/var/lib/cni"] {
            fs::remove_dir(folder).with_context(|| format!("{folder} is not empty"))?;
        }
        fs::remove_file("/var/log/kubelet.log")?;
        // Of processes, or of cgroups with some, the kernel would refuse to remove one.
        cgroups::remove(CGROUP_ROOT)
    })
}
