//! A node that `berth join` makes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Stage;
use crate::controlplane::{ADDRESS, TOKEN};
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
    let log = stage.dir().join(format!("{}.log", room.name()));
    room.enter(|| Daemon::start("berth join", &mut command, &log))
}

/// The same, for good.
pub(super) fn join<'a>(stage: &Stage, room: &'a Room) -> Result<Node<'a>> {
    Ok(Node { room, agent: start(room, stage, &[])? })
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

/// Removes what the cluster's DaemonSets have left on a machine: it is theirs, and neither `berth leave` nor `kubeadm
/// reset` touches it.
pub(super) fn forget_the_clusters_own(room: &Room) -> Result<()> {
    room.enter(|| {
        for family in ["ip", "ip6"] {
            // kube-proxy has none for a family that the machine lacks.
            let _ = command::output(Command::new("nft").args(["delete", "table", family, "kube-proxy"]));
        }
        for path in ["/etc/cni/net.d/10-kindnet.conflist", "/run/xtables.lock"] {
            let path = PathBuf::from(path);
            if path.exists() {
                fs::remove_file(path)?;
            }
        }
        // kube-proxy mounts it; where the machine has modules, it is not empty.
        let _ = fs::remove_dir("/lib/modules");
        Ok(())
    })
}
