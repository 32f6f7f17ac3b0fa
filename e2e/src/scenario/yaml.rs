//! YAML means to Berth what it means to `kubectl`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Deserializer, Value};

use crate::controlplane::ControlPlane;
use crate::{command, paths};

/// The fewest cases that are worth a green line.
const ENOUGH: usize = 60;

/// kubectl cuts a file into documents at lines of three dashes before it parses them, so a directive becomes a document
/// of its own, which it refuses. Berth reads it as sigs.k8s.io/yaml alone does.
const REFUSED_BY_KUBECTL: &[&str] = &["directive"];

/// Compares both programs' reading of every case in agent/manifest/tests/yaml; call it in a house.
///
/// # Errors
/// The cases that are read differently.
pub fn play() -> Result<()> {
    let start = Instant::now();
    let cases = cases(&paths::checkout().join("agent/manifest/tests/yaml"))?;
    let dir = paths::scratch("yaml")?;
    // kubectl asks the API server what kinds there are, even for a dry run of its own.
    let plane = ControlPlane::start(&dir.join("plane"))?;
    let theirs = kubectl(&plane, &cases)?;
    let mut wrong = Vec::new();
    for (name, path) in &cases {
        let ours = berth(path).with_context(|| name.clone())?;
        match theirs.get(name) {
            Some(theirs) if *theirs == without_namespace(ours.clone()) => {}
            Some(theirs) => wrong.push(format!("{name}:\n  kubectl {theirs}\n  berth   {ours}")),
            None if REFUSED_BY_KUBECTL.contains(&name.as_str()) => {}
            None => wrong.push(format!("{name}: kubectl printed nothing")),
        }
    }
    ensure!(wrong.is_empty(), "{} of {} cases differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    ensure!(cases.len() >= ENOUGH, "only {} cases", cases.len());
    drop(plane);
    fs::remove_dir_all(dir)?;
    println!("{:>6.1} s  yaml: {} cases mean the same to kubectl", start.elapsed().as_secs_f64(), theirs.len());
    Ok(())
}

/// Case files by the name of their only object, which is also the file's.
fn cases(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut cases = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let name = path.file_stem().context("a name")?.to_string_lossy().into_owned();
            cases.insert(name, path);
        }
    }
    Ok(cases)
}

fn kubectl(plane: &ControlPlane, cases: &BTreeMap<String, PathBuf>) -> Result<BTreeMap<String, Value>> {
    let mut kubectl = plane.kubectl();
    kubectl.args(["create", "--dry-run=client", "--validate=false", "-o", "json"]);
    for (_, path) in cases.iter().filter(|(name, _)| !REFUSED_BY_KUBECTL.contains(&name.as_str())) {
        kubectl.arg("-f").arg(path);
    }
    let text = command::output(&mut kubectl)?;
    let mut read = BTreeMap::new();
    for value in Deserializer::from_str(&text).into_iter::<Value>() {
        let value = value.context("kubectl's answer")?;
        let name = value["metadata"]["name"].as_str().context("an object without a name")?.to_owned();
        read.insert(name, without_namespace(value));
    }
    Ok(read)
}

/// kubectl fills in the namespace that an object would be created in.
fn without_namespace(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("namespace");
    }
    object
}

fn berth(path: &Path) -> Result<Value> {
    let text = command::output(Command::new(paths::berth("berth")).arg("yaml-to-json").arg(path))?;
    Ok(serde_json::from_str(&text)?)
}
