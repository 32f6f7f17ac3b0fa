//! Names of signals, and those that are passed on.

use berth_cri_core::signals;
use berth_sys::signal::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::fault::{Fault, Outcome};

/// The terminal's size has changed.
pub(crate) const SIGWINCH: i32 = 28;

/// What a person sends to the program in the foreground is meant for the container's process.
pub(crate) const PASSED_ON: [i32; 8] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGCONT, SIGWINCH];

pub(crate) fn parse(text: &str) -> Outcome<i32> {
    signals::parse(text).ok_or_else(|| Fault::new(format!("unknown signal {text:?}")))
}
