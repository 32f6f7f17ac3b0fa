//! The `ip` tool, in the calling thread's network namespace.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{command, kube};

/// Changes something.
///
/// # Errors
/// As [`command::output`].
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    command::output(Command::new("ip").args(arguments)).map(drop)
}

/// Leads from here to the pods of `node`, which is reached by `address`: what another node would have of its network.
///
/// # Errors
/// The node has no network for pods yet, or as [`run`].
pub(crate) fn route_to_pods(node: &Value, address: &str) -> Result<()> {
    run(&["route", "replace", kube::pod_cidr(node)?, "via", address])
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
