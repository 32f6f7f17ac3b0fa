//! Starting a shim.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use berth_cgroup::Entrances;

/// Starts the shim at `program` for a sandbox's folder, in a cgroup that exists. The program goes into the background by itself, once its socket
/// listens: it is ready when this returns.
pub(crate) fn spawn(program: &Path, folder: &Path, cgroup: &Entrances) -> io::Result<()> {
    berth_effect::run("shim-spawn", || {
        let mut command = Command::new(program);
        // Nothing of our environment is a shim's business, and its folder must not pin anybody's mount.
        command.arg("--dir").arg(folder).env_clear().current_dir("/");
        for path in &cgroup.tasks {
            command.arg("--tasks").arg(path);
        }
        if let Some(path) = &cgroup.v2 {
            command.arg("--cgroup").arg(path);
        }
        let output = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output()?;
        if output.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("{}: {}", output.status, words.trim())))
    })
}
