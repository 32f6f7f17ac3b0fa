//! The agent's process, known by its id.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use berth_sys::pidfd::PidFd;
use rustix::io::Errno;
use rustix::process::Signal;

/// Whether `pid` is this very program (or one of its name, after an update), and not another that got the number since.
pub fn is_berth(pid: u32) -> bool {
    let name = |path: &Path| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        name.map(|name| name.trim_end_matches(" (deleted)").to_owned())
    };
    let Ok(theirs) = fs::read_link(format!("/proc/{pid}/exe")) else { return false };
    let ours = fs::read_link("/proc/self/exe").ok();
    ours.is_some_and(|ours| name(&ours) == name(&theirs))
}

/// Asks the process to end (SIGTERM) and waits until it has. `false` when it is still there after `patience`.
///
/// # Errors
/// What the kernel answers; that it is gone already is fine.
pub fn stop(pid: u32, patience: Duration) -> io::Result<bool> {
    let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 0) else { return Ok(true) };
    let process = match PidFd::open(pid) {
        Ok(process) => process,
        Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => return Ok(true),
        Err(error) => return Err(error),
    };
    berth_effect::run("agent-stop", || process.send_signal(Signal::TERM.as_raw()))?;
    process.has_ended(i32::try_from(patience.as_millis()).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_asked_and_waited_for() {
        let mut child = Command::new("sleep").arg("600").spawn().expect("sleep");
        assert!(!is_berth(child.id()));
        assert!(stop(child.id(), Duration::from_secs(30)).expect("stops"));
        child.wait().expect("ended");
        assert!(is_berth(std::process::id()));
    }
}
