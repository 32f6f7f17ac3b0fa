//! One runtime per state folder.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::OpenError;

/// The lock of a state folder, held as long as the value lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock at `path` and writes our process id into it.
    pub(crate) fn take(state: &Path, path: &Path) -> Result<Self, OpenError> {
        let open = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let mut file = open.map_err(OpenError::io("open", path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let _ = (&file).take(32).read_to_string(&mut text);
                return Err(OpenError::Locked { state: state.to_path_buf(), pid: text.trim().parse().unwrap_or(0) });
            }
            Err(error) => return Err(OpenError::io("lock", path)(error.into())),
        }
        let mut write = || -> io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write().map_err(OpenError::io("write", path))?;
        Ok(Self { _file: file })
    }
}
