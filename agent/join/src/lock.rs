//! One `berth join` or `berth leave` at a time.

use std::fs::{self, File};
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};

use crate::{JoinError, Paths};

/// Held while a machine's membership is changed; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    /// The journal's folder itself is locked: a lock file would be one thing more to leave behind.
    _folder: File,
    path: PathBuf,
}

impl Lock {
    /// Takes it. The journal's folder is made if need be, and removed at the end if it is empty then: it may be that of an
    /// attempt that died, or of a join that was undone.
    ///
    /// # Errors
    /// [`JoinError::Busy`], or what the file system answers.
    pub fn take(paths: &Paths) -> Result<Self, JoinError> {
        let journal = paths.journal();
        let path = journal.parent().map_or_else(|| PathBuf::from("/"), PathBuf::from);
        if !path.is_dir() {
            berth_effect::run("join-folder-make", || fs::create_dir_all(&path))
                .map_err(JoinError::io("making the folder", &path))?;
        }
        let folder = File::open(&path).map_err(JoinError::io("opening", &path))?;
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _folder: folder, path }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(JoinError::Busy),
            Err(error) => Err(JoinError::io("locking", path)(error.into())),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Refused when something lies in it.
        berth_effect::run("join-folder-remove", || fs::remove_dir(&self.path)).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_refused_and_nothing_stays() {
        let root = tempfile::tempdir().expect("folder");
        let paths = Paths::below(root.path());
        let first = Lock::take(&paths).expect("free");
        assert!(matches!(Lock::take(&paths), Err(JoinError::Busy)));
        drop(first);
        assert!(!root.path().join("var/lib/berth").exists());
        let second = Lock::take(&paths).expect("free again");
        fs::write(paths.journal(), "x").expect("a journal");
        drop(second);
        assert!(paths.journal().exists());
    }
}
