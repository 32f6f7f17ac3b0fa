//! A node that `berth join` makes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Stage;
use crate::controlplane::{ADDRESS, POD_NETWORK, TOKEN};
use crate::daemon::Daemon;
use crate::kube::{self, Kube};
use crate::room::Room;
use crate::{command, ip, wait};

/// How long a join may take until it ends or runs the agent.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);

/// A room with a node that `berth join` has made: without systemd the same process is its agent.
#[derive(Debug)]
pub(super) struct Node<'a> {
    room: &'a Room,
    agent: Daemon,
}

/// `berth join` of the cluster's own API server, whose hash it knows.
pub(super) fn join_command(room: &Room, stage: &Stage, token: &str) -> Result<Command> {
    Ok(join_command_to(room, &format!("{ADDRESS}:6443"), token, stage.plane().ca_hash()?))
}

/// `berth join` of any API server by any hash.
pub(super) fn join_command_to(room: &Room, server: &str, token: &str, hash: &str) -> Command {
    let mut command = room.command("/usr/bin/berth");
    command.args(["join", server, "--token", token, "--discovery-token-ca-cert-hash", hash]);
    command
}

/// Starts `berth join`; its words go to the room's log.
pub(super) fn start(room: &Room, stage: &Stage, environment: &[(&str, &str)]) -> Result<Daemon> {
    let mut command = join_command(room, stage, TOKEN)?;
    command.envs(environment.iter().copied());
    start_as(room, stage, command)
}

/// The same by kubeadm's own file instead of options.
pub(super) fn start_by_file(room: &Room, stage: &Stage) -> Result<Daemon> {
    let file = stage.dir().join(format!("{}-join.yaml", room.name()));
    fs::write(&file, configuration(room, stage.plane().ca_hash()?))?;
    let mut command = room.command("/usr/bin/berth");
    command.arg("join").arg("--config").arg(&file);
    start_as(room, stage, command)
}

fn configuration(room: &Room, hash: &str) -> String {
    let (name, address) = (room.name(), room.address());
    format!(
        "apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
discovery:
  bootstrapToken:
    apiServerEndpoint: {ADDRESS}:6443
    token: {TOKEN}
    caCertHashes: [\"{hash}\"]
nodeRegistration:
  name: {name}
  kubeletExtraArgs:
  - {{name: node-ip, value: {address}}}
  - {{name: node-labels, value: joined-by=file}}
"
    )
}

fn start_as(room: &Room, stage: &Stage, mut command: Command) -> Result<Daemon> {
    let log = stage.dir().join(format!("{}.log", room.name()));
    room.enter(|| Daemon::start("berth join", &mut command, &log))
}

/// Joins by kubeadm's file, for good.
pub(super) fn join<'a>(stage: &Stage, room: &'a Room) -> Result<Node<'a>> {
    Ok(Node { room, agent: start_by_file(room, stage)? })
}

impl Node<'_> {
    pub(super) fn name(&self) -> &str {
        self.room.name()
    }

    pub(super) fn room(&self) -> &Room {
        self.room
    }

    /// Waits until the node is Ready, and gives the control plane the route to its pods, as kindnetd would there.
    pub(super) fn await_ready(&mut self, kube: &Kube) -> Result<()> {
        await_ready(kube, self.room).map_err(|error| self.agent.check().err().unwrap_or(error))
    }

    /// The file's label is the node's, and `berth status` is one screen that knows all of it.
    pub(super) fn is_what_it_says(&self, stage: &Stage, kube: &Kube) -> Result<()> {
        let node = kube.get("node", self.name())?.context("the node is gone")?;
        ensure!(
            node["metadata"]["labels"]["joined-by"] == "file",
            "the node has the labels {}",
            node["metadata"]["labels"]
        );
        let screen = self.room.run("/usr/bin/berth", &["status"])?;
        let server = format!("https://{ADDRESS}:6443");
        for words in [
            self.name(),
            &server,
            "running, pid",
            "answers",
            "client cert   good until",
            "Ready         True",
            "kindnet-",
        ] {
            ensure!(screen.contains(words), "berth status does not say {words:?}:\n{screen}");
        }
        ensure!(screen.lines().count() < 24, "berth status is more than a screen:\n{screen}");
        ensure!(screen.lines().all(|line| line.chars().count() <= 80), "berth status is too wide:\n{screen}");
        stage.say("berth status: one screen that knows the cluster, the certificate, the conditions and the pods");
        Ok(())
    }

    /// `berth leave`, with the agent running, as a person would.
    pub(super) fn leave(mut self, stage: &Stage, kube: &Kube) -> Result<()> {
        let said = self.room.run("/usr/bin/berth", &["leave"])?;
        ensure!(said.contains(&format!("kubectl delete node {}", self.name())), "berth leave says {said:?}");
        kube.delete(&[&format!("node/{}", self.name())])?;
        let ended = self.agent.wait(PATIENCE)?.context("the agent still runs after berth leave")?;
        ensure!(ended.success(), "the agent ended with {ended} after berth leave");
        remove_route(self.room)?;
        stage.say("berth leave has ended the agent and told how to delete the node");
        Ok(())
    }
}

/// Waits until a room's node is Ready and gives the control plane the route to its pods.
pub(super) fn await_ready(kube: &Kube, room: &Room) -> Result<()> {
    let node = wait::until(&format!("node {} is Ready", room.name()), kube::PATIENCE, || {
        Ok(kube.get("node", room.name())?.filter(kube::ready))
    })?;
    ip::route_to_pods(&node, room.address())
}

/// Takes the control plane's route to a room's pods away.
pub(super) fn remove_route(room: &Room) -> Result<()> {
    ip::run(&["route", "flush", "via", room.address()])
}

/// Where kindnet's configuration lets host-local keep its reservations.
const RESERVATIONS: &str = "/run/cni-ipam-state/kindnet";

/// Removes what the cluster's DaemonSets have left on a machine: it is theirs, and neither `berth leave` nor `kubeadm
/// reset` touches it. No address may be reserved any more by then.
pub(super) fn forget_the_clusters_own(room: &Room) -> Result<()> {
    room.enter(|| {
        for family in ["ip", "ip6"] {
            // kube-proxy has none for a family that the machine lacks.
            let _ = command::output(Command::new("nft").args(["delete", "table", family, "kube-proxy"]));
        }
        for entry in fs::read_dir(RESERVATIONS).into_iter().flatten() {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            ensure!(name == "lock" || name.starts_with("last_reserved_ip."), "{RESERVATIONS}/{name} is left");
        }
        for path in ["/etc/cni/net.d/10-kindnet.conflist", "/run/xtables.lock"] {
            let path = PathBuf::from(path);
            if path.exists() {
                fs::remove_file(path)?;
            }
        }
        let _ = fs::remove_dir_all("/run/cni-ipam-state");
        for folder in ["/etc/cni/net.d", "/lib/modules"] {
            // Mounted by pods, and on some machines not empty before.
            let _ = fs::remove_dir(folder);
        }
        // To the other nodes' pods.
        ip::run(&["route", "flush", "root", POD_NETWORK])
    })
}
