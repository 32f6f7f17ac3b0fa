//! A process that joins a running container.

use berth_plan::container as plan;

use super::process;
use crate::error::ConfigError;

/// Compiles an exec: the container's process with another command.
///
/// User, groups, capabilities, seccomp filter, working folder and environment are those of the container, whatever its
/// process has changed since. Inheritable and ambient capabilities are the container's too, so empty as a rule
/// (CVE-2022-29162).
pub fn exec(container: &plan::Container, id: &str, command: &[String], tty: bool) -> Result<plan::Exec, ConfigError> {
    process::check_arguments("cmd", command)?;
    let mut process = container.process.clone();
    process.args = command.to_vec();
    process.terminal = tty;
    if tty && !process.env.iter().any(|entry| process::name_of(entry) == "TERM") {
        process.env.push(process::TERM.to_owned());
    }
    Ok(plan::Exec { id: id.to_owned(), container: container.id.clone(), delegate: None, process, user: container.user })
}
