//! Steps that fail because a test wants to see what is left then.
//!
//! What turns an error into a message with its circumstances calls [`step`] for each step that went well. In a build with
//! debug assertions the n-th of a process fails with `BERTH_FAIL_AT=n`, and the n-th of what it forks with
//! `BERTH_FAIL_IN_FORK_AT=n`: the step itself is done then, which is the harder case to clean up after. In every other
//! build nothing of this is left.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, process};

/// Of the first process.
pub const OWN: &str = "BERTH_FAIL_AT";
/// Of its forks.
pub const FORKED: &str = "BERTH_FAIL_IN_FORK_AT";

/// EIO.
const ERROR: i32 = 5;

static FIRST: OnceLock<u32> = OnceLock::new();
static STEPS: AtomicU64 = AtomicU64::new(0);
static STEPS_OF_FORKS: AtomicU64 = AtomicU64::new(0);

/// Counts a step.
///
/// # Errors
/// It is the one that is to fail.
pub fn step() -> io::Result<()> {
    if !cfg!(debug_assertions) {
        return Ok(());
    }
    let here = process::id();
    let (variable, steps) = if *FIRST.get_or_init(|| here) == here { (OWN, &STEPS) } else { (FORKED, &STEPS_OF_FORKS) };
    let Some(at) = env::var(variable).ok().and_then(|at| at.parse::<u64>().ok()) else { return Ok(()) };
    if steps.fetch_add(1, Ordering::Relaxed) + 1 != at {
        return Ok(());
    }
    eprintln!("{variable}={at}: this step fails");
    Err(io::Error::from_raw_os_error(ERROR))
}
