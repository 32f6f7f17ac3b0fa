//! Who may depend on whom.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use berth_e2e::{command, paths};
use serde_json::Value;

/// Where a crate stands; an edge may point to the same tier or a lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    /// Types, system calls, the counted door.
    Leaf,
    /// Decides: no clock, file or async.
    Deciding,
    Doing,
    Program,
}

const LEAVES: &[&str] = &["berth-effect", "berth-guard", "berth-plan", "berth-cri-proto", "berth-sys", "berth-tls"];
const DECIDING: &[&str] = &["berth-agent-core", "berth-cri-core"];
const PROGRAMS: &[&str] = &["berth", "berth-e2e", "xtask"];

/// What a deciding crate must not be able to reach for by itself.
const DOING_CRATES: &[&str] = &[
    "berth-effect",
    "berth-sys",
    "hyper",
    "kube",
    "libc",
    "netlink-sys",
    "nix",
    "rustix",
    "tempfile",
    "tokio",
    "tonic",
];

/// What the shim must not contain: each costs memory per pod or brings threads.
const NOT_IN_SHIM: &[&str] = &[
    "hyper",
    "openssl",
    "ring",
    "rustls",
    "aws-lc-rs",
    "serde_json",
    "tokio",
    "tonic",
    "tracing",
    "zbus",
    "cgroups-rs",
];

/// What nothing may contain, with the reason.
const BANNED: &[(&str, &str)] = &[
    ("chrono", "jiff or std serve; a second calendar is one too many"),
    ("native-tls", "one TLS implementation: rustls on aws-lc-rs"),
    ("openssl", "one TLS implementation: rustls on aws-lc-rs"),
    ("openssl-sys", "needs a system library at build time"),
    ("ring", "one cryptographic library: aws-lc-rs"),
    ("zbus", "cri/systemd speaks the little D-Bus that systemd wants, without an async runtime"),
];

/// A crate of the workspace: its folder and the names of its normal and build dependencies.
#[derive(Debug, Default)]
struct Package {
    folder: String,
    dependencies: Vec<String>,
}

pub(super) fn direction() -> Result<()> {
    let packages = packages()?;
    let faults = faults(&packages);
    ensure!(faults.is_empty(), "\n  {}", faults.join("\n  "));
    Ok(())
}

pub(super) fn shim() -> Result<()> {
    let names = tree(&["--package", "berth-shim", "--edges", "normal"])?;
    let found: Vec<&str> = NOT_IN_SHIM.iter().filter(|name| names.contains(**name)).copied().collect();
    ensure!(found.is_empty(), "berth-shim contains {}", found.join(", "));
    Ok(())
}

/// A program per command: what is linked in is read again for each.
pub(super) fn runtime() -> Result<()> {
    let names = tree(&["--package", "berth-runtime", "--edges", "normal"])?;
    let may = ["serde_json", "tracing"];
    let mut unwanted = NOT_IN_SHIM.iter().filter(|name| !may.contains(*name)).chain(&["berth-cri-proto", "clap"]);
    let found: Vec<&str> = unwanted.by_ref().filter(|name| names.contains(**name)).copied().collect();
    ensure!(found.is_empty(), "berth-oci contains {}", found.join(", "));
    Ok(())
}

pub(super) fn banned() -> Result<()> {
    let names = tree(&["--workspace", "--edges", "normal,build"])?;
    let found: Vec<String> =
        BANNED.iter().filter(|(name, _)| names.contains(*name)).map(|(n, why)| format!("{n} ({why})")).collect();
    ensure!(found.is_empty(), "in the dependency graph: {}", found.join(", "));
    Ok(())
}

fn packages() -> Result<BTreeMap<String, Package>> {
    let text = command::output(cargo().args(["metadata", "--format-version=1", "--no-deps", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&text)?;
    let root = metadata["workspace_root"].as_str().context("workspace_root")?;
    let mut packages = BTreeMap::new();
    for package in metadata["packages"].as_array().context("packages")? {
        let manifest = Path::new(package["manifest_path"].as_str().context("manifest_path")?);
        let folder = manifest.parent().and_then(|path| path.strip_prefix(root).ok()).context("a crate's folder")?;
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let dependencies = dependencies
            .filter(|dependency| dependency["kind"] != "dev")
            .filter_map(|dependency| dependency["name"].as_str().map(str::to_owned))
            .collect();
        let name = package["name"].as_str().context("a crate's name")?.to_owned();
        packages.insert(name, Package { folder: folder.display().to_string(), dependencies });
    }
    Ok(packages)
}

fn faults(packages: &BTreeMap<String, Package>) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, package) in packages {
        for dependency in &package.dependencies {
            let Some(target) = packages.get(dependency) else {
                if tier(name) == Tier::Deciding && DOING_CRATES.contains(&dependency.as_str()) {
                    faults.push(format!("{name} decides and must not depend on {dependency}"));
                }
                continue;
            };
            if tier(name) < tier(dependency) {
                faults.push(format!("{name} ({:?}) -> {dependency} ({:?}) points up", tier(name), tier(dependency)));
            } else if tier(name) == Tier::Deciding && DOING_CRATES.contains(&dependency.as_str()) {
                faults.push(format!("{name} decides and must not depend on {dependency}"));
            }
            if !house_allows(&package.folder, &target.folder) {
                faults
                    .push(format!("{name} in {} must not depend on {dependency} in {}", package.folder, target.folder));
            }
        }
    }
    faults
}

fn tier(name: &str) -> Tier {
    match name {
        name if LEAVES.contains(&name) => Tier::Leaf,
        name if DECIDING.contains(&name) => Tier::Deciding,
        name if PROGRAMS.contains(&name) => Tier::Program,
        _ => Tier::Doing,
    }
}

/// The runtime and the plugins know nothing of the agent, so that each half works with others' other halves.
fn house_allows(from: &str, to: &str) -> bool {
    let house = |folder: &str| folder.split('/').next().unwrap_or_default().to_owned();
    match (house(from).as_str(), house(to).as_str()) {
        ("cri" | "cni-plugins", "agent") => false,
        // The plugins take only the system call wrappers and the counted door from the runtime's side.
        ("cni-plugins", "cri") => to == "cri/sys" || to == "cri/effect",
        (from, "e2e" | "xtask") => from == "xtask",
        _ => true,
    }
}

/// The names of all crates in a `cargo tree`, for the platform that Berth runs on.
fn tree(arguments: &[&str]) -> Result<BTreeSet<String>> {
    let mut cargo = cargo();
    cargo.args(["tree", "--locked", "--target", "x86_64-unknown-linux-gnu", "--prefix", "none", "--format", "{p}"]);
    let text = command::output(cargo.args(arguments))?;
    Ok(text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::checkout());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(folder: &str, dependencies: &[&str]) -> Package {
        Package { folder: folder.into(), dependencies: dependencies.iter().map(|name| (*name).to_owned()).collect() }
    }

    #[test]
    fn upward_edges_and_hidden_doing_are_faults() {
        let packages = BTreeMap::from([
            ("berth".to_owned(), package("agent/berth", &["berth-cri", "tokio"])),
            ("berth-cri".to_owned(), package("cri/server", &["berth-cri-core", "berth-pods"])),
            ("berth-cri-core".to_owned(), package("cri/core", &["berth-cri", "tokio"])),
            ("berth-pods".to_owned(), package("agent/pods", &["berth-cri"])),
        ]);
        assert_eq!(
            faults(&packages),
            [
                "berth-cri in cri/server must not depend on berth-pods in agent/pods",
                "berth-cri-core (Deciding) -> berth-cri (Doing) points up",
                "berth-cri-core decides and must not depend on tokio",
            ]
        );
    }
}
