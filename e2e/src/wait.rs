//! Waiting for a condition of another process, with a deadline that is an error and never an assertion about speed.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(300);

/// Asks `probe` until it answers `Ok(Some(value))`. `Ok(None)` and errors mean "not yet"; the last error is named when
/// `limit` has passed.
///
/// # Errors
/// The limit passed.
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let last = match probe() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => "not yet".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if start.elapsed() >= limit {
            bail!("{what}: not within {} s; last answer: {last}", limit.as_secs());
        }
        thread::sleep(pause);
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

/// The same for a plain yes or no.
///
/// # Errors
/// The limit passed.
pub fn until_true(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, limit, || Ok(probe()?.then_some(())))
}
