//! Building the control plane's programs from their Go modules.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::{command, paths};

/// The version of Kubernetes that e2e/controlplane/go.mod names.
pub const KUBERNETES: &str = "v1.37.2";

/// Everything that [`build`] makes.
pub const PROGRAMS: &[&str] =
    &["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubeadm", "kubectl", "kubelet", "etcd"];

/// Builds what is missing. The programs are kept while go.mod and go.sum stay as they are.
///
/// # Errors
/// Go is missing or refuses.
pub fn build(log: &Path) -> Result<()> {
    let module = paths::checkout().join("e2e/controlplane");
    let bin = paths::control_plane_bin();
    let stamp = bin.join("modules.sha256");
    let wanted = digest(&module)?;
    let complete = PROGRAMS.iter().all(|program| bin.join(program).is_file());
    let recorded = fs::read_to_string(&stamp).unwrap_or_default();
    if complete && recorded == wanted {
        return Ok(());
    }
    fs::create_dir_all(&bin)?;
    let kubernetes: Vec<String> = PROGRAMS
        .iter()
        .filter(|program| **program != "etcd")
        .map(|program| format!("k8s.io/kubernetes/cmd/{program}"))
        .collect();
    let (major, minor) = major_minor()?;
    let set = "-X k8s.io/component-base/version";
    let flags = format!("-s -w {set}.gitVersion={KUBERNETES} {set}.gitMajor={major} {set}.gitMinor={minor}");
    command::logged(go(&module, &bin, &flags).args(&kubernetes), log)?;
    command::logged(go(&module, &bin.join("etcd"), "-s -w").arg("go.etcd.io/etcd/server/v3"), log)?;
    fs::write(stamp, wanted)?;
    Ok(())
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

fn digest(module: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    for file in ["go.mod", "go.sum"] {
        hash.update(fs::read(module.join(file)).with_context(|| format!("{file} of e2e/controlplane"))?);
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
