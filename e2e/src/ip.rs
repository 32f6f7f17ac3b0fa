//! The `ip` tool, in the calling thread's network namespace.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command;

/// Changes something.
///
/// # Errors
/// As [`command::output`].
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    command::output(Command::new("ip").args(arguments)).map(drop)
}

/// What it lists.
///
/// # Errors
/// As [`command::output`].
pub(crate) fn json(arguments: &[&str]) -> Result<Vec<Value>> {
    let text = command::output(Command::new("ip").arg("-json").args(arguments))?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(&text).with_context(|| format!("ip {}", arguments.join(" ")))
}
