//! Exit records: `DIR/exits/CONTAINER`, whole or absent, there before anybody is told.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;

use berth_plan::codec;
use berth_plan::message::Exit;
use berth_sys::path::Root;
use berth_sys::{Mode, OFlags};

const FOLDER: &str = "exits";

/// Makes the folder below the working directory.
pub(crate) fn make_folder() -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(FOLDER) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Replaces a file of the working directory by a rename.
pub(crate) fn write_file(name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = format!(".tmp-{name}");
    fs::write(&temporary, bytes)?;
    fs::rename(temporary, name)
}

pub(crate) fn write(folder: &Root, container: &str, exit: &Exit) -> io::Result<()> {
    let bytes = codec::encode(exit).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let (temporary, name) = (format!("{FOLDER}/.tmp-{container}"), format!("{FOLDER}/{container}"));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
    io::Write::write_all(&mut folder.open_file(&temporary, flags, Mode::from_raw_mode(0o600))?, &bytes)?;
    berth_sys::path::rename(folder.as_fd(), &temporary, &name)
}

pub(crate) fn remove(folder: &Root, container: &str) -> io::Result<()> {
    berth_sys::path::remove(folder.as_fd(), format!("{FOLDER}/{container}"))
}

/// Whether an id can be a file's name, and none that starts with a dot.
pub(crate) fn is_name(id: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !id.is_empty() && id.len() <= berth_plan::MAX_ID && !id.starts_with('.') && id.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn ids_are_plain_file_names() {
        assert!(is_name("0af3-x_y.z"));
        for bad in ["", ".", "..", ".tmp-x", "a/b", "a\0b", "ä", &"x".repeat(129)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }
}
