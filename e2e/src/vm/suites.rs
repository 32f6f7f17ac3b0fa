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
pub(crate) fn build<'a>(suites: impl Iterator<Item = &'a Suite>) -> Result<Vec<PathBuf>> {
    // The whole workspace: a part of it would choose other features, and compile half of the dependencies again.
    let arguments = ["test", "--workspace", "--locked", "--no-run", "--quiet", "--message-format=json"];
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(arguments).current_dir(paths::checkout()).env("CARGO_TARGET_DIR", paths::target());
    let output = cargo.stderr(std::process::Stdio::inherit()).output().context("cargo")?;
    ensure!(output.status.success(), "cargo {}: {}", arguments.join(" "), output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let found = |suite: &Suite| {
        let path = text.lines().find_map(|line| executable(line, suite));
        path.with_context(|| format!("cargo has built no test {} of {}", suite.target, suite.package))
    };
    suites.map(found).collect()
}

/// Of one of cargo's messages, where it tells of this suite
/// (<https://doc.rust-lang.org/cargo/reference/external-tools.html#artifact-messages>).
fn executable(line: &str, suite: &Suite) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let (target, package) = (&message["target"], message["package_id"].as_str()?);
    let of_package = package.rsplit('#').next()?.split('@').next() == Some(suite.package);
    let is_suite = of_package && target["kind"][0] == "test" && target["name"] == suite.target;
    is_suite.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_is_told_from_the_crate_s_own_tests_and_from_others() {
        let line = |kind: &str, name: &str, package: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"path+file:///w/{package}#berth-{package}@0.1.0",
                "target":{{"kind":["{kind}"],"name":"{name}"}},"executable":"/t/{name}"}}"#
            )
        };
        let suite = Suite { package: "berth-shim", target: "it" };
        assert_eq!(executable(&line("test", "it", "shim"), &suite), Some("/t/it".into()));
        for other in [line("lib", "it", "shim"), line("test", "at", "shim"), line("test", "it", "cri"), "{".to_owned()]
        {
            assert_eq!(executable(&other, &suite), None, "{other}");
        }
    }
}
