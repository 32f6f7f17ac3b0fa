//! Certificates that are issued for minutes are renewed while pods run.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Stage;
use crate::kube::{self, Kube};
use crate::room::Room;
use crate::wait;

/// A certificate is renewed 132 s after its issue at the latest.
const PATIENCE: Duration = Duration::from_secs(300);
const CURRENT: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

/// What a rotation must not change: since when the nodes are Ready, and every container with its restarts.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    ready_since: BTreeMap<String, String>,
    containers: BTreeMap<String, u64>,
}

/// Waits until the client certificate of every room has changed, and compares what was seen before and after.
pub(super) fn is_live(stage: &Stage, kube: &Kube, rooms: &[&Room]) -> Result<()> {
    let before = see(kube)?;
    let certificates: Vec<Certificate> = rooms.iter().map(|room| certificate(room)).collect::<Result<_>>()?;
    for (room, old) in rooms.iter().zip(&certificates) {
        let new = wait::until(&format!("the certificate of {} is renewed", room.name()), PATIENCE, || {
            Ok(Some(certificate(room)?).filter(|new| new.bytes != old.bytes))
        })?;
        ensure!(new.target != old.target, "{CURRENT} of {} points to the same file as before", room.name());
    }
    // The agents still reach the API server; the new pods that the scenario then asks for need watch, status and secrets.
    for room in rooms {
        let lease = lease(kube, room.name())?;
        wait::until_true("the node renews its lease", kube::PATIENCE, || Ok(self::lease(kube, room.name())? != lease))?;
    }
    let after = see(kube)?;
    ensure!(after == before, "the rotation has disturbed something:\nbefore {before:?}\nafter  {after:?}");
    stage.say("both nodes' certificates were renewed; the nodes stayed Ready and no container restarted");
    Ok(())
}

#[derive(Debug)]
struct Certificate {
    target: PathBuf,
    bytes: Vec<u8>,
}

fn certificate(room: &Room) -> Result<Certificate> {
    room.enter(|| Ok(Certificate { target: fs::read_link(CURRENT).context(CURRENT)?, bytes: fs::read(CURRENT)? }))
}

fn lease(kube: &Kube, node: &str) -> Result<String> {
    kube.run(&["get", "lease", node, "--namespace", "kube-node-lease", "-o", "jsonpath={.spec.renewTime}"])
}

fn see(kube: &Kube) -> Result<Seen> {
    let mut ready_since = BTreeMap::new();
    for node in kube.list("nodes", "")? {
        ensure!(kube::ready(&node), "node {} is not Ready", kube::name(&node));
        ready_since.insert(kube::name(&node), kube::turned(&node).unwrap_or_default().to_owned());
    }
    let mut containers = BTreeMap::new();
    for pod in kube.list_where("pods", &["--all-namespaces"])? {
        for status in pod["status"]["containerStatuses"].as_array().into_iter().flatten() {
            let id = status["containerID"].as_str().unwrap_or_default();
            containers
                .insert(format!("{} {id}", kube::name(&pod)), status["restartCount"].as_u64().unwrap_or_default());
        }
    }
    Ok(Seen { ready_since, containers })
}
