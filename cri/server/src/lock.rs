//! One runtime per state folder.
//!
//! The lock is flock(2)'s: it ends with the last descriptor. A child has its parent's descriptors between fork and exec,
//! so the lock of a runtime that died with a child half born is held for a moment by nobody in particular.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use berth_sys::pidfd::PidFd;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::OpenError;

/// How long children of a runtime that died may take to exec.
const CHILDREN: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// The lock of a state folder, held as long as the value lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock at `path` and writes our process id into it. Blocks while only what a dead runtime left holds it.
    pub(crate) fn take(state: &Path, path: &Path) -> Result<Self, OpenError> {
        let start = Instant::now();
        let mut file = loop {
            // Opened anew each time: a runtime that takes itself off removes the file.
            let open = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
            let file = open.map_err(OpenError::io("open", path))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // One that took itself off meanwhile has removed it: it is nobody's lock any more.
                Ok(()) if file.metadata().is_ok_and(|data| data.nlink() == 0) => {}
                Ok(()) => break file,
                Err(Errno::WOULDBLOCK) => {
                    let pid = holder(&file);
                    if is_alive(pid) || start.elapsed() > CHILDREN {
                        return Err(OpenError::Locked { state: state.to_path_buf(), pid });
                    }
                }
                Err(error) => return Err(OpenError::io("lock", path)(error.into())),
            }
            sleep(PAUSE);
        };
        let mut write = || -> io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write().map_err(OpenError::io("write", path))?;
        Ok(Self { _file: file })
    }
}

/// Who wrote its number into the lock; 0 when nobody has, yet.
fn holder(file: &File) -> i32 {
    let mut text = String::new();
    let _ = file.take(32).read_to_string(&mut text);
    text.trim().parse().unwrap_or(0)
}

fn is_alive(pid: i32) -> bool {
    pid > 0 && PidFd::open(pid).is_ok_and(|process| !process.has_ended(0).unwrap_or(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_a_dead_runtime_left_to_a_child_is_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        // As a child that is between fork and exec has it.
        let left = Lock::take(folder.path(), &path).expect("free");
        let mut dead = std::process::Command::new("true").spawn().expect("true");
        dead.wait().expect("its end");
        std::fs::write(&path, format!("{}\n", dead.id())).expect("written");
        let child = std::thread::spawn(move || {
            sleep(20 * PAUSE);
            drop(left);
        });
        let taken = Lock::take(folder.path(), &path).expect("taken in the end");
        child.join().expect("no panic");
        // One that lives is not waited for.
        match Lock::take(folder.path(), &path) {
            Err(OpenError::Locked { pid, .. }) => assert_eq!(pid.unsigned_abs(), std::process::id()),
            other => panic!("{other:?}"),
        }
        drop(taken);
        Lock::take(folder.path(), &path).expect("free again");
    }
}
