//! N1 and N2: attaching a pod to a bridge with host-local, masquerading and a host port, and detaching it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_cni::{Attachment, NetworkList, Plugins, Runtime};
use berth_sys::netns::NetNs;
use serde_json::{Value, json};

use super::figure::Figure;
use super::reference::build_plugins;
use super::table::{self, Row};
use crate::{cni, paths};

const ROUNDS: usize = 20;
const HOST_PORT: u16 = 8080;

/// ADD and DEL.
type Verbs = [Figure; 2];

/// Measures our plugins exec'd and in-process beside the reference's, which are exec'd, and prints the rows. Call it in a
/// house; the programs are those of `$BERTH_PROFILE`.
///
/// # Errors
/// A plugin fails.
pub fn cni(json: bool) -> Result<()> {
    let dir = paths::scratch("bench-cni")?;
    let bin = cni::ours(&dir, &["bridge", "host-local", "portmap"])?;
    let theirs = in_namespace(|| execd(&build_plugins()?, &dir.join("theirs")))?;
    let ours = in_namespace(|| execd(&bin, &dir.join("ours")))?;
    let inside = in_namespace(|| in_process(&dir.join("inside")))?;
    fs::remove_dir_all(&dir)?;
    let row = |id, work, ours: &Figure, theirs: &Figure, part| {
        Row::against(id, work, ours.median, vec![Some(theirs.median)], part)
    };
    let rows = [
        row("N1", "CNI ADD, exec'd", &ours[0], &theirs[0], 8.0),
        row("N1", "CNI ADD, in-process", &inside[0], &theirs[0], 15.0),
        row("N2", "CNI DEL, exec'd", &ours[1], &theirs[1], 8.0),
        row("N2", "CNI DEL, in-process", &inside[1], &theirs[1], 8.0),
    ];
    match json {
        true => println!("{:#}", table::json(&rows, &["theirs"], &[])),
        false => print!("{}", table::rows(&rows, &["theirs"])),
    }
    Ok(())
}

fn in_namespace(work: impl FnOnce() -> Result<Verbs> + Send) -> Result<Verbs> {
    NetNs::fresh()?.run(work)?
}

/// The same for both; the backends are nftables, which the reference is faster with.
fn list(store: &Path) -> Value {
    json!({"cniVersion": "1.0.0", "name": "bench", "plugins": [
        {"type": "bridge", "bridge": "br-bench", "isGateway": true, "ipMasq": true, "ipMasqBackend": "nftables",
         "hairpinMode": true,
         "ipam": {"type": "host-local", "dataDir": store, "subnet": "10.89.0.0/16", "routes": [{"dst": "0.0.0.0/0"}]}},
        {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}},
    ]})
}

fn mappings() -> Value {
    json!({"portMappings": [{"hostPort": HOST_PORT, "containerPort": 80, "protocol": "tcp"}]})
}

/// The plugins of a folder, started one after the other as a runtime does.
fn execd(bin: &Path, store: &Path) -> Result<Verbs> {
    let list = list(store);
    let plugins: Vec<Value> = list["plugins"].as_array().context("plugins")?.clone();
    rounds(|container, pod, verb| {
        let mut result = Value::Null;
        let forward: Vec<_> = plugins.iter().collect();
        let order: Vec<_> = if verb == "DEL" { forward.into_iter().rev().collect() } else { forward };
        for plugin in order {
            let mut config = plugin.clone();
            config["cniVersion"] = list["cniVersion"].clone();
            config["name"] = list["name"].clone();
            if config["type"] == "portmap" {
                config["runtimeConfig"] = mappings();
            }
            if !result.is_null() {
                config["prevResult"] = result;
            }
            result = exec(bin, container, pod, verb, &config)?;
        }
        Ok(())
    })
}

fn exec(bin: &Path, container: &str, pod: &NetNs, verb: &str, config: &Value) -> Result<Value> {
    let answer = cni::call(bin, verb, cni::Container { id: container, netns: &cni::path_of(pod) }, config)?;
    ensure!(answer.status.success(), "{} {verb}: {}", config["type"], answer.text);
    Ok(answer.json())
}

/// As Berth's own runtime calls them, libcni's cache included.
fn in_process(dir: &Path) -> Result<Verbs> {
    let plugins = Plugins {
        builtin: berth_cni_plugins::builtin,
        bin_dirs: Vec::new(),
        running_dir: None,
        timeout: Duration::from_secs(60),
    };
    let runtime = Runtime::new(plugins, &dir.join("cache"));
    let list = NetworkList::parse(list(&dir.join("store")).to_string().as_bytes())?;
    rounds(|container, pod, verb| {
        let attachment = Attachment {
            container_id: container.to_owned(),
            netns: Some(cni::path_of(pod).into()),
            ifname: "eth0".to_owned(),
            args: Vec::new(),
            capabilities: mappings().as_object().cloned().unwrap_or_default(),
        };
        match verb {
            "ADD" => runtime.add(&list, &attachment).map(drop)?,
            _ => runtime.del(&list, &attachment)?,
        }
        Ok(())
    })
}

/// The first round is not counted: it makes the bridge.
fn rounds(mut call: impl FnMut(&str, &NetNs, &str) -> Result<()>) -> Result<Verbs> {
    let mut samples = [Vec::new(), Vec::new()];
    for round in 0..=ROUNDS {
        let (pod, container) = (NetNs::fresh()?, format!("pod{round}"));
        for (verb, samples) in ["ADD", "DEL"].into_iter().zip(&mut samples) {
            let start = Instant::now();
            call(&container, &pod, verb)?;
            if round > 0 {
                samples.push(start.elapsed());
            }
        }
    }
    Ok(samples.map(|samples| Figure::of(&samples)))
}
