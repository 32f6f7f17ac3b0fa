//! The default AppArmor profile in the kernel, and what is loaded there.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use berth_cri_core::HostFacts;
use berth_cri_core::apparmor::{DEFAULT_PROFILE, DEFAULT_PROFILE_TEXT};

use crate::places::Places;

/// Compiles profiles; Debian's package `apparmor` has it.
const PARSER: [&str; 2] = ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"];
/// apparmorfs of securityfs.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// The names of the loaded profiles; none where there is no AppArmor. A line is `name (mode)`.
pub(crate) fn loaded() -> Vec<String> {
    let text = fs::read_to_string(LOADED).unwrap_or_default();
    text.lines().filter_map(|line| line.rsplit_once(" (")).map(|(name, _)| name.to_owned()).collect()
}

/// Loads the default profile where AppArmor is on, unless this boot has had the same one from here. Containers run
/// without it where that fails, and one that asks for it by name is refused.
pub(crate) fn load_default(facts: &HostFacts, places: &Places) {
    if !facts.apparmor {
        return;
    }
    // The state folder is gone after a reboot, as the profile is.
    let copy = places.state.join(DEFAULT_PROFILE);
    let is_same = fs::read_to_string(&copy).is_ok_and(|text| text == DEFAULT_PROFILE_TEXT);
    if is_same && loaded().iter().any(|name| name == DEFAULT_PROFILE) {
        return;
    }
    match berth_effect::run("apparmor-load", load) {
        Ok(()) => {
            // Without the copy it is loaded again next time.
            let _ = fs::write(&copy, DEFAULT_PROFILE_TEXT);
            tracing::info!(profile = DEFAULT_PROFILE, "loaded the default AppArmor profile");
        }
        Err(error) => {
            tracing::warn!(profile = DEFAULT_PROFILE, error, "containers run without AppArmor's default profile");
        }
    }
}

fn load() -> Result<(), String> {
    let parser = PARSER.into_iter().find(|path| Path::new(path).exists());
    let parser = parser.ok_or("there is no apparmor_parser: install the package apparmor")?;
    let failed = |error: io::Error| format!("{parser}: {error}");
    let mut child = Command::new(parser)
        .args(["--replace", "--skip-cache", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // Its answer tells more than a broken pipe does.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(DEFAULT_PROFILE_TEXT.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{parser}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())),
    }
}
