//! Joins that can't succeed: one clear sentence, exit code 1, and nothing left on disk.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use super::Stage;
use super::node::{PATIENCE, join_command, join_command_to};
use crate::controlplane::{ADDRESS, TOKEN};
use crate::daemon;
use crate::kube::Kube;
use crate::leak::Picture;
use crate::room::Room;
use crate::{apt, wait};

/// The token's id with another secret.
const WRONG_SECRET: &str = "abcdef.fedcba9876543210";
/// An id that the cluster does not know.
const UNKNOWN: &str = "fedcba.0123456789abcdef";
/// Of nothing.
const WRONG_HASH: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// How many files may still be made before the disk is full, in turn.
const FILES: std::ops::Range<u64> = 0..12;

/// A join that must fail.
struct Case<'a> {
    what: &'a str,
    command: Command,
    /// Its sentence has all of these in it.
    words: &'a [&'a str],
}

/// Plays them all in `room`, which looked like `before` and does so after each.
///
/// # Errors
/// What was not as it should be.
pub(super) fn play(stage: &Stage, room: &Room, before: &Picture) -> Result<()> {
    tokens(stage, room, before)?;
    tampered_cluster_info(stage, room, before)?;
    unreachable(stage, room, before)?;
    clock(stage, room, before)?;
    full_disk(stage, room, before)
}

fn tokens(stage: &Stage, room: &Room, before: &Picture) -> Result<()> {
    let expired = expired_token(stage)?;
    for (what, token, words) in [
        ("a wrong secret", WRONG_SECRET, ["token"].as_slice()),
        ("an unknown token", UNKNOWN, ["fedcba"].as_slice()),
        ("an expired token", &expired, ["expired"].as_slice()),
    ] {
        // kubeadm asks the same: a hidden secret stays hidden in what is said.
        let secret = token.split('.').nth(1).unwrap_or_default();
        let said = fails(stage, room, Case { what, command: join_command(room, stage, token)?, words })?;
        ensure!(!said.contains(secret), "{what}: the token's secret is in {said:?}");
    }
    let command = join_command_to(room, &format!("{ADDRESS}:6443"), TOKEN, WRONG_HASH);
    fails(stage, room, Case { what: "a wrong hash", command, words: &["hash"] })?;
    room.await_equal(before, &[])?;
    stage.say("failing joins: wrong, unknown and expired token, wrong hash");
    Ok(())
}

/// A token whose signature has gone from cluster-info.
fn expired_token(stage: &Stage) -> Result<String> {
    let token = stage.plane().token("1s")?;
    let id = token.split('.').next().unwrap_or_default().to_owned();
    let kube = stage.kube();
    wait::until_true("the token expires", Duration::from_secs(60), || {
        let info = cluster_info(&kube)?;
        Ok(!info.contains(&format!("jws-kubeconfig-{id}")))
    })?;
    Ok(token)
}

fn cluster_info(kube: &Kube) -> Result<String> {
    kube.run(&["get", "configmap", "cluster-info", "--namespace", "kube-public", "-o", "json"])
}

/// Somebody has changed the server's address; who signs is stopped meanwhile, as it would sign anew.
fn tampered_cluster_info(stage: &Stage, room: &Room, before: &Picture) -> Result<()> {
    let kube = stage.kube();
    let patch = |from: &str, to: &str| {
        let info: serde_json::Value = serde_json::from_str(&cluster_info(&kube)?)?;
        let text = info["data"]["kubeconfig"].as_str().context("cluster-info has no kubeconfig")?.replace(from, to);
        let patch = serde_json::json!({"data": {"kubeconfig": text}}).to_string();
        kube.run(&["patch", "configmap", "cluster-info", "--namespace", "kube-public", "--patch", &patch]).map(drop)
    };
    stage.plane().signal("kube-controller-manager", Signal::SIGSTOP)?;
    let outcome = patch(":6443", ":6444").and_then(|()| {
        let command = join_command(room, stage, TOKEN)?;
        fails(stage, room, Case { what: "a tampered cluster-info", command, words: &["cluster-info", "signature"] })
    });
    let repaired = patch(":6444", ":6443");
    stage.plane().signal("kube-controller-manager", Signal::SIGCONT)?;
    outcome?;
    repaired?;
    room.await_equal(before, &[])?;
    stage.say("failing joins: tampered cluster-info");
    Ok(())
}

fn unreachable(stage: &Stage, room: &Room, before: &Picture) -> Result<()> {
    let hash = stage.plane().ca_hash()?;
    for (what, server) in [("nobody listens", "10.251.0.1:6444"), ("no such machine", "10.251.0.200:6443")] {
        let command = join_command_to(room, server, TOKEN, hash);
        fails(stage, room, Case { what, command, words: &[server] })?;
    }
    room.await_equal(before, &[])?;
    stage.say("failing joins: API server unreachable");
    Ok(())
}

/// The machine's clock is a day behind or ahead.
fn clock(stage: &Stage, room: &Room, before: &Picture) -> Result<()> {
    for (what, offset) in [("a clock a day behind", "-1d"), ("a clock a day ahead", "+1d")] {
        let mut command = join_command(room, stage, TOKEN)?;
        command.env("LD_PRELOAD", apt::FAKETIME).env("FAKETIME", offset).env("DONT_FAKE_MONOTONIC", "1");
        fails(stage, room, Case { what, command, words: &["clock"] })?;
    }
    room.await_equal(before, &[])?;
    stage.say("failing joins: clock off by a day, either way");
    Ok(())
}

/// Each file that a join makes is in turn the one that the disk has no room for.
fn full_disk(stage: &Stage, room: &Room, before: &Picture) -> Result<()> {
    for files in FILES {
        room.limit_files(Some(files))?;
        let command = join_command(room, stage, TOKEN)?;
        let outcome = fails(stage, room, Case { what: "a full disk", command, words: &["No space left"] });
        room.limit_files(None)?;
        outcome.with_context(|| format!("with room for {files} more files"))?;
        room.await_equal(before, &[]).with_context(|| format!("after room for {files} more files"))?;
    }
    stage.say(&format!("failing joins: disk full at each of {} files", FILES.end - FILES.start));
    Ok(())
}

/// A node of that name is Ready.
///
/// # Errors
/// What was not as it should be.
pub(super) fn name_taken(stage: &Stage, room: &Room, name: &str) -> Result<()> {
    let before = room.picture()?;
    let mut command = join_command(room, stage, TOKEN)?;
    command.args(["--node-name", name]);
    fails(stage, room, Case { what: "a name that is taken", command, words: &[name, "Ready"] })?;
    // The other room's pods are still being started meanwhile, which shows here as well.
    room.await_equal(&before, &["process", "network namespace"])?;
    stage.say("failing joins: the name of a node that is Ready");
    Ok(())
}

/// The machine is a node already.
///
/// # Errors
/// What was not as it should be.
pub(super) fn joined_twice(stage: &Stage, room: &Room) -> Result<()> {
    let before = room.picture()?;
    let command = join_command(room, stage, TOKEN)?;
    fails(stage, room, Case { what: "a second join", command, words: &[room.name(), "joined", "berth leave"] })?;
    // The cluster goes on meanwhile, with kube-proxy's rules among others.
    room.await_equal(&before, &["process", "network namespace", "firewall rule"])?;
    stage.say("failing joins: a machine that has joined");
    Ok(())
}

/// Runs a join to its end and returns its sentence.
fn fails(stage: &Stage, room: &Room, case: Case<'_>) -> Result<String> {
    let Case { what, mut command, words } = case;
    let (out, err) = (stage.dir().join("failing.out"), stage.dir().join("failing.err"));
    let ended = room.enter(|| {
        let command = command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?);
        let mut child = command.spawn()?;
        let ended = daemon::wait_child(&mut child, PATIENCE)?;
        if ended.is_none() {
            child.kill()?;
            child.wait()?;
        }
        Ok(ended)
    })?;
    let said = fs::read_to_string(&err)?;
    let Some(ended) = ended else { bail!("{what}: the join did not end: {said}") };
    ensure!(ended.code() == Some(1), "{what}: the join ended with {ended}: {said}");
    ensure!(said.trim().lines().count() == 1, "{what}: more than one sentence: {said}");
    let missing: Vec<&&str> = words.iter().filter(|word| !said.contains(**word)).collect();
    ensure!(missing.is_empty(), "{what}: {missing:?} not in {said:?}");
    println!("          {what}: {}", said.trim());
    Ok(said)
}
