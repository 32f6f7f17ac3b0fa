//! All processes of an exec: the session that its first one leads.

use std::fs;
use std::io;

use berth_sys::pidfd::PidFd;
use berth_sys::signal::{self, SIGKILL};

/// It has ended.
const ESRCH: i32 = 3;

/// Rounds of looking for what was forked while the last round went on.
const ROUNDS: u32 = 8;

/// Sends `signal` to every process of the session. With SIGKILL it looks again until nobody is left, so that a fork does
/// not slip through.
pub(crate) fn signal_all(session: i32, number: i32) -> io::Result<()> {
    // The leader is our child and not reaped, so its number is its own.
    signal::send(session, number)?;
    for _ in 0..if number == SIGKILL { ROUNDS } else { 1 } {
        let mut found = false;
        for pid in members(session)? {
            if pid != session {
                found = true;
                send_member(pid, session, number)?;
            }
        }
        if !found {
            break;
        }
    }
    Ok(())
}

/// Signals a process that is not our child: it may have ended, and its number be a stranger's by now.
fn send_member(pid: i32, session: i32, number: i32) -> io::Result<()> {
    let Ok(process) = PidFd::open(pid) else { return Ok(()) };
    // What this says is true of the handle's process as long as that lives, and the handle reaches no other one.
    match fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) if lives_in(&stat, session) => match process.send_signal(number) {
            Err(error) if error.raw_os_error() == Some(ESRCH) => Ok(()),
            other => other,
        },
        _ => Ok(()),
    }
}

/// Living processes of a session, from the host's procfs.
fn members(session: i32) -> io::Result<Vec<i32>> {
    let mut members = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // A process may end while we look.
        let Ok(stat) = fs::read(format!("/proc/{pid}/stat")) else { continue };
        if lives_in(&stat, session) {
            members.push(pid);
        }
    }
    Ok(members)
}

/// `pid (name) state ppid pgrp session …`; the name may hold anything, so fields count from the last parenthesis.
fn lives_in(stat: &[u8], session: i32) -> bool {
    let Some(end) = stat.iter().rposition(|&byte| byte == b')') else { return false };
    let rest = String::from_utf8_lossy(&stat[end + 1..]);
    let mut fields = rest.split_ascii_whitespace();
    let alive = fields.next().is_some_and(|state| !matches!(state, "Z" | "X"));
    alive && fields.nth(2).and_then(|field| field.parse().ok()) == Some(session)
}

#[cfg(test)]
mod tests {
    use super::lives_in;

    #[test]
    fn the_session_is_read_past_any_name() {
        assert!(lives_in(b"7 (a) b) S 1 2 41 0 -1", 41));
        assert!(!lives_in(b"7 (a) S 1 41 2 0 -1", 41));
        assert!(!lives_in(b"7 (a) Z 1 2 41 0 -1", 41));
        assert!(!lives_in(b"7 torn", 41));
    }
}
