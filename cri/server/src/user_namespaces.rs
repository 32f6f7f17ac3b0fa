//! Whether pods can have user namespaces of their own here.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// What a trial showed; made when it is first asked for, since most nodes never ask.
#[derive(Debug, Default)]
pub(crate) struct UserNamespaces(OnceLock<Result<(), String>>);

impl UserNamespaces {
    /// Whether files of the runtime's folder, of overlays and of a tmpfs can be shown with other ids; why not otherwise.
    /// Blocks the first time. A trial needs a process with one thread, so it is the shim's program that makes it.
    pub(crate) fn supported(&self, shim: &Path, root: &Path) -> &Result<(), String> {
        self.0.get_or_init(|| {
            let mut command = Command::new(shim);
            command.arg("--probe").arg(root).env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
            let output = command.output().map_err(|error| format!("{}: {error}", shim.display()))?;
            if output.status.success() {
                return Ok(());
            }
            let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            tracing::info!(reason = words, "no user namespaces for pods");
            Err(words)
        })
    }
}
