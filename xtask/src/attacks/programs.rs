//! The test programs, built as they are or with guards that can be taken away.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use berth_e2e::{command, paths};
use serde_json::Value;

use super::list::Test;

/// A test program, as the table calls it and as cargo does.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) name: &'static str,
    package: &'static str,
    /// The target, or none for the tests in the crate itself.
    target: Option<&'static str>,
}

pub(super) const PROGRAMS: &[Program] = &[
    Program { name: "core", package: "berth-cri-core", target: None },
    Program { name: "cri", package: "berth-cri", target: Some("lifecycle") },
    Program { name: "image", package: "berth-image", target: Some("images") },
    Program { name: "image-lib", package: "berth-image", target: None },
    Program { name: "oci", package: "berth-runtime", target: Some("oci") },
    Program { name: "shim", package: "berth-shim", target: Some("it") },
    Program { name: "volumes", package: "berth-volumes", target: Some("volumes") },
];

/// Seconds that a test may take before it counts as one that hangs.
const PATIENCE: &str = "300";

/// How a test went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Failed,
    /// It was not there, or it hung, or it died without a word.
    Nothing,
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Nothing => "no result",
        })
    }
}

/// Executables by the names of [`PROGRAMS`], each with the folder to run it in.
#[derive(Debug)]
pub(super) struct Programs(BTreeMap<&'static str, (PathBuf, PathBuf)>);

impl Programs {
    /// Builds them, with `switchable` as a variant of their own beside the ordinary ones.
    pub(super) fn build(switchable: bool) -> Result<Self> {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(paths::checkout()).env("CARGO_TARGET_DIR", paths::target()).args([
            "test",
            "--workspace",
            "--locked",
            "--no-run",
            "--quiet",
            "--message-format=json-render-diagnostics",
            "--lib",
        ]);
        for target in PROGRAMS.iter().filter_map(|program| program.target) {
            cargo.args(["--test", target]);
        }
        if switchable {
            cargo.args(["--features", "berth-guard/switchable,berth-carried/switchable-guards"]);
        }
        let output = command::output(&mut cargo)?;
        let built: Vec<(String, String, PathBuf)> =
            output.lines().filter_map(|line| artifact(line).transpose()).collect::<Result<_>>()?;
        let mut programs = BTreeMap::new();
        for program in PROGRAMS {
            let wanted = program.target.map_or_else(|| program.package.replace('-', "_"), str::to_owned);
            let found = built.iter().find(|(package, target, _)| package == program.package && *target == wanted);
            let (.., executable) =
                found.with_context(|| format!("cargo built no tests {wanted} of {}", program.package))?;
            programs.insert(program.name, (executable.clone(), folder(program.package)?));
        }
        Ok(Self(programs))
    }

    /// Runs one test without the guards that are named.
    pub(super) fn run(&self, test: &Test, without: &[String]) -> Result<Outcome> {
        let (program, folder) =
            self.0.get(test.program.as_str()).with_context(|| format!("{test}: no such program"))?;
        let mut command = Command::new("timeout");
        command.args(["--kill-after=10", PATIENCE]).arg(program).arg(&test.name).current_dir(folder);
        // The runtime's own harness knows no options.
        if test.program != "cri" {
            command.arg("--exact");
        }
        command.env_remove(berth_guard::VARIABLE);
        if !without.is_empty() {
            command.env(berth_guard::VARIABLE, without.join(","));
        }
        let output = command.stdin(Stdio::null()).output().context("timeout(1)")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let said = |end: &str| {
            text.lines().any(|line| line.starts_with(&format!("test {} ... ", test.name)) && line.ends_with(end))
        };
        Ok(match (output.status.success(), said("ok"), said("FAILED")) {
            (true, true, false) => Outcome::Passed,
            (false, false, true) => Outcome::Failed,
            _ => Outcome::Nothing,
        })
    }
}

/// The package, the target and the executable of a line of cargo's, where it tells of a built test program.
fn artifact(line: &str) -> Result<Option<(String, String, PathBuf)>> {
    let value: Value = serde_json::from_str(line).with_context(|| format!("cargo said {line:?}"))?;
    let Some(executable) = value["executable"].as_str().filter(|_| value["profile"]["test"] == true) else {
        return Ok(None);
    };
    // path+file:///…/cri/shim#berth-shim@0.1.0, or without the name where the folder has it.
    let id = value["package_id"].as_str().context("package_id")?;
    let (place, name) = id.rsplit_once('#').context("package_id")?;
    let package = name.split_once('@').map_or_else(|| place.rsplit('/').next().unwrap_or_default(), |(name, _)| name);
    let target = value["target"]["name"].as_str().context("target.name")?;
    Ok(Some((package.to_owned(), target.to_owned(), PathBuf::from(executable))))
}

/// Where cargo runs a package's tests.
fn folder(package: &str) -> Result<PathBuf> {
    let folder = match package {
        "berth-cri-core" => "cri/core",
        "berth-cri" => "cri/server",
        "berth-image" => "cri/image",
        "berth-shim" => "cri/shim",
        "berth-volumes" => "agent/volumes",
        other => anyhow::bail!("{other} lies in no known folder"),
    };
    let path = paths::checkout().join(Path::new(folder));
    ensure!(path.is_dir(), "{} is no folder", path.display());
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_words_are_understood() {
        let line = r#"{"reason":"compiler-artifact","package_id":"path+file:///x/cri/shim#berth-shim@0.1.0",
            "target":{"name":"it","kind":["test"]},"profile":{"test":true},"executable":"/t/it-1"}"#;
        let expected = ("berth-shim".to_owned(), "it".to_owned(), PathBuf::from("/t/it-1"));
        assert_eq!(artifact(line).expect("understood"), Some(expected));
        assert_eq!(artifact(r#"{"reason":"build-finished","success":true}"#).expect("understood"), None);
        assert!(artifact("cargo").is_err());
    }
}
