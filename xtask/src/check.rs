//! `cargo xtask check`: what a reviewer would otherwise have to look for.

mod dependencies;
mod sources;

use anyhow::{Result, bail};

use crate::ci;

/// One of them.
type Check = fn() -> Result<()>;

/// Runs every check, so that one run shows everything there is to mend.
pub(crate) fn run() -> Result<()> {
    let checks: [(&str, Check); 7] = [
        ("formatting", || ci::cargo(&["fmt", "--all", "--check"])),
        ("sources", sources::check),
        ("direction of dependencies", dependencies::direction),
        ("the shim's dependencies", dependencies::shim),
        ("berth-oci's dependencies", dependencies::runtime),
        ("banned dependencies", dependencies::banned),
        ("clippy", || {
            ci::cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"])
        }),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        match check() {
            Ok(()) => println!("ok      {name}"),
            Err(error) => {
                println!("FAILED  {name}: {error:#}");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}
