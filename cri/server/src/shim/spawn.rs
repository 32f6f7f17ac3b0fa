//! Starting a shim.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// Starts the shim at `program` for a sandbox's folder. The program goes into the background by itself, once its socket
/// listens: it is ready when this returns.
pub(crate) fn spawn(program: &Path, folder: &Path) -> io::Result<()> {
    berth_effect::run("shim-spawn", || {
        let mut command = Command::new(program);
        // Nothing of our environment is a shim's business, and its folder must not pin anybody's mount.
        command.arg("--dir").arg(folder).env_clear().current_dir("/");
        let output = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output()?;
        if output.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("{}: {}", output.status, words.trim())))
    })
}
