//! Building the control plane's programs from their Go modules.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::{command, paths};

/// The version of Kubernetes that e2e/controlplane/go.mod names.
pub const KUBERNETES: &str = "v1.37.2";

/// Everything that [`build`] makes, but for CoreDNS: what a control plane and kubeadm's nodes run.
pub const PROGRAMS: &[&str] = &[
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubeadm",
    "kubectl",
    "kubelet",
    ETCD,
];

const ETCD: &str = "etcd";

/// kubeadm's other addon, which is a module of its own.
const COREDNS: &str = "coredns";

/// Builds what is missing. The programs are kept while go.mod and go.sum stay as they are.
///
/// # Errors
/// Go is missing or refuses.
pub fn build(log: &Path) -> Result<()> {
    let module = paths::checkout().join("e2e/controlplane");
    let bin = paths::control_plane_bin();
    fs::create_dir_all(&bin)?;
    let wanted = digest(&module, &["go.mod", "go.sum"])?;
    let stamp = bin.join("modules.sha256");
    let missing = missing(PROGRAMS, &bin, &stamp, &wanted);
    let kubernetes: Vec<String> = missing
        .iter()
        .filter(|program| **program != ETCD)
        .map(|program| format!("k8s.io/kubernetes/cmd/{program}"))
        .collect();
    if !kubernetes.is_empty() {
        let (major, minor) = major_minor()?;
        let set = "-X k8s.io/component-base/version";
        let flags = format!("-s -w {set}.gitVersion={KUBERNETES} {set}.gitMajor={major} {set}.gitMinor={minor}");
        command::logged(go(&module, &bin, &flags).args(&kubernetes), log)?;
    }
    if missing.contains(&ETCD) {
        command::logged(go(&module, &bin.join(ETCD), "-s -w").arg("go.etcd.io/etcd/server/v3"), log)?;
    }
    fs::write(stamp, wanted)?;
    build_coredns(&bin, log)
}

fn build_coredns(bin: &Path, log: &Path) -> Result<()> {
    let module = paths::checkout().join("e2e/coredns");
    let wanted = digest(&module, &["go.mod", "go.sum", "main.go"])?;
    let stamp = bin.join("coredns.sha256");
    if !missing(&[COREDNS], bin, &stamp, &wanted).is_empty() {
        command::logged(go(&module, &bin.join(COREDNS), "-s -w").arg("."), log)?;
    }
    fs::write(stamp, wanted)?;
    Ok(())
}

/// The programs that are not there, or all of them when they were built from something else.
fn missing<'a>(programs: &[&'a str], bin: &Path, stamp: &Path, wanted: &str) -> Vec<&'a str> {
    let current = fs::read_to_string(stamp).is_ok_and(|recorded| recorded == wanted);
    programs.iter().copied().filter(|program| !current || !bin.join(program).is_file()).collect()
}

/// `go build` of one module into `out` (a folder or a file).
pub(crate) fn go(module: &Path, out: &Path, flags: &str) -> Command {
    let mut command = Command::new("go");
    command
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        .args(["build", "-mod=readonly", "-trimpath", "-ldflags", flags, "-o"])
        .arg(if out.is_dir() { out.join("") } else { out.to_owned() });
    command
}

fn major_minor() -> Result<(&'static str, &'static str)> {
    let (major, rest) =
        KUBERNETES.trim_start_matches('v').split_once('.').context("a version has a major and a minor part")?;
    Ok((major, rest.split('.').next().unwrap_or(rest)))
}

pub(crate) fn digest(module: &Path, files: &[&str]) -> Result<String> {
    let mut hash = Sha256::new();
    for file in files {
        let path = module.join(file);
        hash.update(fs::read(&path).with_context(|| path.display().to_string())?);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_that_go_mod_names() {
        let text = fs::read_to_string(paths::checkout().join("e2e/controlplane/go.mod")).expect("go.mod");
        assert!(text.contains(&format!("k8s.io/kubernetes {KUBERNETES}\n")), "go.mod names another Kubernetes");
    }
}
