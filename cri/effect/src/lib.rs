//! The one door through which the machine is changed.
//!
//! Whatever outlives the process (a mount, a namespace, a cgroup, a link, a file that recovery reads) is changed inside
//! [`run`] or [`run_async`], which count. With `BERTH_CRASH_AT=n` in the environment the process aborts at crash point
//! `n`: point `2k-1` lies before the k-th effect and `2k` after it. A test can so visit every point of a scenario and
//! show that a restart finishes or undoes what was begun. `BERTH_CRASH_TRACE=FILE` appends one line per effect
//! (`k name`), which tells the test how many points there are.
//!
//! [`record`] holds the two ways in which state is written to disk.

pub mod record;

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the environment asks for, read once.
#[derive(Debug, Default)]
struct Crash {
    at: Option<u64>,
    trace: Option<PathBuf>,
}

static CRASH: OnceLock<Crash> = OnceLock::new();
static COUNT: AtomicU64 = AtomicU64::new(0);

fn crash() -> &'static Crash {
    CRASH.get_or_init(|| Crash {
        at: env::var("BERTH_CRASH_AT").ok().and_then(|n| n.parse().ok()),
        trace: env::var_os("BERTH_CRASH_TRACE").map(PathBuf::from),
    })
}

/// Carries out one effect, synchronously. `name` is for people: what is done, as `noun-verb` ("netns-create").
pub fn run<T>(name: &'static str, effect: impl FnOnce() -> T) -> T {
    let number = before(name);
    let outcome = effect();
    after(number, name);
    outcome
}

/// Carries out one effect that awaits.
pub async fn run_async<T>(name: &'static str, effect: impl Future<Output = T>) -> T {
    let number = before(name);
    let outcome = effect.await;
    after(number, name);
    outcome
}

/// How many effects have begun in this process.
pub fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

fn before(name: &'static str) -> u64 {
    let number = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    let crash = crash();
    if let Some(path) = &crash.trace
        && let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path)
    {
        // One write, so that lines of two threads do not mix. A trace that can't be written must not fail the effect.
        let _ = file.write_all(format!("{number} {name}\n").as_bytes());
    }
    abort_at(crash.at, 2 * number - 1, name);
    number
}

fn after(number: u64, name: &'static str) {
    abort_at(crash().at, 2 * number, name);
}

fn abort_at(at: Option<u64>, point: u64, name: &'static str) {
    if at == Some(point) {
        let side = if point % 2 == 1 { "before" } else { "after" };
        eprintln!("BERTH_CRASH_AT={point}: aborting {side} effect {name}");
        process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_return_what_they_made_and_are_counted() {
        let start = count();
        assert_eq!(run("test-effect", || 7), 7);
        assert!(count() > start);
    }
}
