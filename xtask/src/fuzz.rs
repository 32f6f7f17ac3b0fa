//! `cargo xtask fuzz`: the fuzz tests for longer than an ordinary run takes them.

use std::process::Command;

use anyhow::{Result, bail};
use berth_e2e::paths;

/// Gives each fuzz test so many seconds. They are plain tests of random scripts (cri/fuzz); what they have found to fail
/// is printed with the seed that repeats it.
pub(crate) fn run(seconds: u64) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(paths::checkout()).env("CARGO_TARGET_DIR", paths::target());
    cargo.env("BOLERO_RANDOM_TEST_TIME_MS", (seconds * 1000).to_string());
    // Time is the only limit.
    cargo.env("BOLERO_RANDOM_ITERATIONS", u32::MAX.to_string());
    let status = cargo.args(["test", "--workspace", "--locked", "--lib", "--no-fail-fast", "--", "fuzz::"]).status()?;
    if !status.success() {
        bail!("a fuzz test failed: repeat it with the BOLERO_RANDOM_SEED that it named");
    }
    Ok(())
}
