//! The project's own test programs, for a guest.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::paths;

/// A test program: `package` is cargo's, `target` the file or folder under its `tests/`.
#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) package: &'static str,
    pub(crate) target: &'static str,
    /// Programs of the package that it runs (`CARGO_BIN_EXE_…`).
    pub(crate) programs: &'static [&'static str],
}

/// What cargo has made of a suite.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) test: PathBuf,
    /// In the suite's order, by the paths that the test knows.
    pub(crate) programs: Vec<PathBuf>,
}

impl Suite {
    /// What it is called in the guest.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.package, self.target)
    }
}

/// Builds all test programs, as `cargo xtask test` does, and answers with the paths of these.
///
/// # Errors
/// They do not compile, or one is not among them.
pub(crate) fn build<'a>(suites: impl Iterator<Item = &'a Suite>) -> Result<Vec<Built>> {
    // The whole workspace: a part of it would choose other features, and compile half of the dependencies again.
    let arguments = ["test", "--workspace", "--locked", "--no-run", "--quiet", "--message-format=json"];
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(arguments).current_dir(paths::checkout()).env("CARGO_TARGET_DIR", paths::target());
    let output = cargo.stderr(std::process::Stdio::inherit()).output().context("cargo")?;
    ensure!(output.status.success(), "cargo {}: {}", arguments.join(" "), output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let find = |suite: &Suite, kind: &str, name: &str| {
        let path = text.lines().find_map(|line| executable(line, suite.package, kind, name));
        path.with_context(|| format!("cargo has built no {kind} {name} of {}", suite.package))
    };
    let found = |suite: &Suite| {
        let programs = suite.programs.iter().map(|name| find(suite, "bin", name)).collect::<Result<_>>()?;
        Ok(Built { test: find(suite, "test", suite.target)?, programs })
    };
    suites.map(found).collect()
}

/// Of one of cargo's messages, where it tells of this target
/// (<https://doc.rust-lang.org/cargo/reference/external-tools.html#artifact-messages>).
fn executable(line: &str, package: &str, kind: &str, name: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let (target, id) = (&message["target"], message["package_id"].as_str()?);
    let of_package = id.rsplit('#').next()?.split('@').next() == Some(package);
    // A program's own unit tests are another program of the same name.
    let as_wanted = message["profile"]["test"] == (kind == "test");
    let is_it = of_package && as_wanted && target["kind"][0] == kind && target["name"] == name;
    is_it.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_is_told_from_the_crate_s_own_tests_and_from_others() {
        let line = |kind: &str, test: bool, name: &str, package: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"path+file:///w/{package}#berth-{package}@0.1.0",
                "target":{{"kind":["{kind}"],"name":"{name}"}},"profile":{{"test":{test}}},"executable":"/t/{name}"}}"#
            )
        };
        let find = |line: &str, kind: &str, name: &str| executable(line, "berth-shim", kind, name);
        assert_eq!(find(&line("test", true, "it", "shim"), "test", "it"), Some("/t/it".into()));
        for other in [
            line("lib", true, "it", "shim"),
            line("test", true, "at", "shim"),
            line("test", true, "it", "cri"),
            "{".to_owned(),
        ] {
            assert_eq!(find(&other, "test", "it"), None, "{other}");
        }
        assert_eq!(find(&line("bin", false, "x", "shim"), "bin", "x"), Some("/t/x".into()));
        assert_eq!(find(&line("bin", true, "x", "shim"), "bin", "x"), None, "its unit tests");
    }
}
