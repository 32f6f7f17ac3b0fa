//! The agent as a systemd unit.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::{JoinError, Paths};

/// The unit that runs agent and runtime in one process.
pub const UNIT: &str = "berth-agent.service";

/// As packages install it.
const TEXT: &str = include_str!("../../../manifests/systemd/berth-agent.service");
/// Where packages have the program.
const PACKAGED: &str = "/usr/bin/berth";

/// Whether systemd runs this machine (sd_booted(3)).
pub fn is_running(paths: &Paths) -> bool {
    paths.place(Path::new("/run/systemd/system")).is_dir()
}

/// Whether a package has installed the unit.
pub(crate) fn is_packaged(paths: &Paths) -> bool {
    paths.packaged_units().iter().any(|folder| folder.join(UNIT).is_file())
}

/// The unit's text for a program at `program`.
pub(crate) fn text(program: &Path) -> String {
    // In a unit `%` begins a specifier; the quotes are for white space.
    let program = program.display().to_string().replace('%', "%%");
    let program = if program.contains(char::is_whitespace) { format!("\"{program}\"") } else { program };
    TEXT.replace(&format!("={PACKAGED} "), &format!("={program} "))
}

/// Asks systemd for something.
///
/// # Errors
/// [`JoinError::Systemd`] with its words.
pub(crate) fn systemctl(arguments: &[&str]) -> Result<(), JoinError> {
    let failed = |reason: String| JoinError::Systemd { arguments: arguments.join(" "), reason };
    let output = berth_effect::run("systemctl", || run(arguments)).map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let words = words.trim().lines().collect::<Vec<_>>().join("; ");
    Err(failed(if words.is_empty() { output.status.to_string() } else { words }))
}

fn run(arguments: &[&str]) -> std::io::Result<Output> {
    Command::new("systemctl").arg("--no-ask-password").args(arguments).stdin(Stdio::null()).output()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_starts_this_program() {
        let line =
            |text: &str| text.lines().find(|line| line.starts_with("ExecStart=")).map(str::to_owned).expect("a line");
        let plain = line(&text(Path::new("/opt/berth/bin/berth")));
        assert!(plain.starts_with("ExecStart=/opt/berth/bin/berth agent "), "{plain}");
        assert!(plain.contains(" --kubeconfig=/etc/kubernetes/kubelet.conf "), "{plain}");
        let odd = line(&text(Path::new("/a b/100%/berth")));
        assert!(odd.starts_with("ExecStart=\"/a b/100%%/berth\" agent "), "{odd}");
    }
}
