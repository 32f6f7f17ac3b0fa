//! A join that is killed between any two of its steps: joining again works, and leaving after it leaves nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Stage;
use super::node;
use crate::daemon::Daemon;
use crate::kube::{self, Kube};
use crate::leak::Picture;
use crate::room::Room;
use crate::scenario::crash::aborted_at;
use crate::wait;

/// More points than a join has steps: what follows is the agent's, which `cargo xtask e2e crash` visits.
const MOST: u64 = 60;
/// A join has at least so many: the files that kubeadm leaves.
const LEAST: u64 = 6;

/// Visits every point in `room`, which looked like `before` and does so after each.
///
/// # Errors
/// The first point after which something was not as it should be.
pub(super) fn play(stage: &Stage, kube: &Kube, room: &Room, before: &Picture) -> Result<()> {
    let mut visited = 0;
    for point in 1..MOST {
        let Some(place) = crash(stage, kube, room, point)? else { break };
        visited += 1;
        again(stage, kube, room, before).with_context(|| format!("after a crash at point {point}: {place}"))?;
    }
    ensure!(visited >= LEAST, "a join has only {visited} steps");
    stage.say(&format!("killed at each of {visited} points of a join: joining again worked, and leaving left nothing"));
    Ok(())
}

/// Lets a join abort at a point and returns which it was; `None` when the node was registered before, and is gone again.
fn crash(stage: &Stage, kube: &Kube, room: &Room, point: u64) -> Result<Option<String>> {
    let mut join = node::start(room, stage, &[("BERTH_CRASH_AT", &point.to_string())])?;
    let mut registered = false;
    wait::until_true("the join aborts or registers the node", node::PATIENCE, || {
        registered = kube.get("node", room.name())?.is_some();
        Ok(registered || join.wait(Duration::ZERO)?.is_some())
    })
    .with_context(|| join.words().unwrap_or_default())?;
    if registered {
        leave(kube, room, join)?;
        return Ok(None);
    }
    let said = join.words()?;
    aborted_at(&said).map(Some).with_context(|| format!("it ended, and not by the crash: {said}"))
}

fn again(stage: &Stage, kube: &Kube, room: &Room, before: &Picture) -> Result<()> {
    let mut join = node::start(room, stage, &[])?;
    wait::until_true("the node is registered", kube::PATIENCE, || {
        join.check()?;
        Ok(kube.get("node", room.name())?.is_some())
    })
    .with_context(|| join.words().unwrap_or_default())?;
    leave(kube, room, join)?;
    room.await_equal(before, &[])
}

fn leave(kube: &Kube, room: &Room, mut join: Daemon) -> Result<()> {
    room.run("/usr/bin/berth", &["leave"])?;
    join.wait(node::PATIENCE)?.context("the agent still runs after berth leave")?;
    kube.delete(&[&format!("node/{}", room.name())])
}
