//! How many descriptors the program may have, and how many its containers.
//!
//! Each pod, session and connection takes some, and most systems start programs with a soft limit of 1024 for the sake of
//! select(2), which nothing here calls. So the program takes all that it may, as Go's runtime does. Containers must not
//! notice: they get the limit that the program was started with.

use std::io;
use std::sync::OnceLock;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// The limits from before they were raised.
static STARTED_WITH: OnceLock<Rlimit> = OnceLock::new();

/// Raises the soft limit of open files to the hard one, for this program but not for the containers that it starts. Meant
/// for the program's beginning; repeating it is fine.
///
/// # Errors
/// What setrlimit(2) answers.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let before = getrlimit(Resource::Nofile);
    let _first = STARTED_WITH.set(before);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: before.maximum, ..before })?)
}

/// Gives a shim that has no children yet, which is what containers inherit from, the limit from before.
pub(crate) fn restore(shim: i32) -> io::Result<()> {
    if let Some(before) = STARTED_WITH.get() {
        prlimit(Pid::from_raw(shim), Resource::Nofile, *before)?;
    }
    Ok(())
}
