//! Every crash point of a pod's whole life: the program aborts there, is started again, and leaves nothing behind.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::leak::Picture;
use crate::paths;
use crate::standalone::Home;

/// A pod with what a pod may have without a cluster: volumes on disk and in memory, the downward API, a host port.
const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: crash, labels: {app: crash}}
spec:
  terminationGracePeriodSeconds: 5
  containers:
  - name: main
    image: berth.local/hello:latest
    imagePullPolicy: Never
    env: [{name: PORT, value: \"8080\"}]
    ports: [{containerPort: 8080, hostPort: 8080}]
    resources: {limits: {memory: 64Mi}}
    volumeMounts:
    - {name: disk, mountPath: /disk}
    - {name: memory, mountPath: /memory}
    - {name: labels, mountPath: /labels}
  volumes:
  - {name: disk, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
  - name: labels
    downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}
";

/// How a run with a crash point went.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It aborted; the effect's side and name as it said them.
    Aborted(String),
    /// The pod's life was over before the point.
    NotReached,
}

/// Visits every crash point from `first` on; call it in a house.
///
/// # Errors
/// The points after which a restart did not end clean.
pub fn play(first: u64) -> Result<()> {
    let start = Instant::now();
    let dir = paths::scratch("crash")?;
    let home = Home::new(&dir)?;
    fs::write(home.manifests().join("pod.yaml"), POD)?;

    let trace = dir.join("trace");
    live(&home, &[("BERTH_CRASH_TRACE", trace.display().to_string())]).context("a life without a crash")?;
    let before = Picture::take(&home.folders())?;
    let effects = fs::read_to_string(&trace)?.lines().count() as u64;
    println!("{:>6.1} s  crash: a pod's life has {effects} effects", start.elapsed().as_secs_f64());

    let (mut visited, mut failed) = (0, Vec::new());
    for point in first.max(1).. {
        home.forget()?;
        match visit(&home, &before, point) {
            // What runs side by side is counted in changing order, so a life may have an effect more or less.
            Ok(Outcome::NotReached) => break,
            Ok(Outcome::Aborted(_)) => visited += 1,
            Err(error) => {
                visited += 1;
                println!("crash point {point}: {error:#}");
                failed.push(point);
                clean_up(&home, &dir)?;
            }
        }
    }
    println!("{:>6.1} s  crash: {visited} crash points visited", start.elapsed().as_secs_f64());
    ensure!(failed.is_empty(), "{} of {visited} crash points do not end clean: {failed:?}", failed.len());
    ensure!(visited + first.max(1) > effects, "only {visited} points of {effects} effects were visited");
    fs::remove_dir_all(dir)?;
    Ok(())
}

/// From the start to Ready and, by Ctrl-C, to the end.
fn live(home: &Home, environment: &[(&str, String)]) -> Result<()> {
    let mut run = home.start(environment)?;
    run.await_ready()?;
    run.stop()
}

fn visit(home: &Home, before: &Picture, point: u64) -> Result<Outcome> {
    let outcome = crash(home, point)?;
    if outcome == Outcome::NotReached {
        return Ok(outcome);
    }
    let place = match &outcome {
        Outcome::Aborted(place) => place.clone(),
        Outcome::NotReached => String::new(),
    };
    live(home, &[]).and_then(|()| before.await_equal(&home.folders(), &[])).with_context(|| place)?;
    Ok(outcome)
}

fn crash(home: &Home, point: u64) -> Result<Outcome> {
    let mut run = home.start(&[("BERTH_CRASH_AT", point.to_string())])?;
    let mut ended = run.await_ready_or_end()?;
    if ended.is_none() {
        // It may abort just now, in what follows Ready.
        let _ = run.interrupt();
        ended = Some(run.await_end()?);
    }
    match (ended, aborted_at(&run.words()?)) {
        (_, Some(place)) => Ok(Outcome::Aborted(place)),
        (Some(status), None) if status.success() => Ok(Outcome::NotReached),
        (status, None) => bail!("it ended with {status:?} and not by the crash\n{}", run.last_words()),
    }
}

/// The effect's side and name at which a program said that it aborts.
pub(super) fn aborted_at(said: &str) -> Option<String> {
    said.lines().find_map(|line| line.split_once("aborting ").map(|(_, place)| place.to_owned()))
}

/// After a failed point: whatever is left must not spoil the next one. A run without pods takes away what it knows of.
fn clean_up(home: &Home, dir: &Path) -> Result<()> {
    let manifest = home.manifests().join("pod.yaml");
    let aside = dir.join("pod.yaml");
    fs::rename(&manifest, &aside)?;
    let mut run = home.start(&[])?;
    run.await_said("running the pods")?;
    // Its end says no more than the failed point did.
    let _ = run.stop();
    fs::rename(&aside, &manifest)?;
    Ok(())
}
