//! Sealed memory files: bytes handed to another process that nobody can change any more.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};

const SEALS: SealFlags = SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// A memory file with `bytes`, sealed against every change (memfd_create(2), Linux 3.17). `name` is for people.
///
/// # Errors
/// What the kernel answers.
pub fn sealed(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    rustix::fs::fcntl_add_seals(&file, SEALS)?;
    Ok(file.into())
}

/// Whether a descriptor is a memory file that nobody can change.
pub fn is_sealed(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fcntl_get_seals(fd).is_ok_and(|seals| seals.contains(SEALS))
}

/// An empty memory file that can be written.
///
/// # Errors
/// What the kernel answers.
pub fn unsealed(name: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?)
}

/// Reads all of a memory file of at most `limit` bytes, which must be sealed: what was checked stays what it was.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] when it is larger than `limit` or not sealed; what the kernel answers.
pub fn read(fd: BorrowedFd<'_>, limit: usize) -> io::Result<Vec<u8>> {
    let size = check(fd, limit)?;
    let mut bytes = vec![0; size];
    read_at(fd, &mut bytes)?;
    Ok(bytes)
}

/// Reads the first `limit` bytes, or fewer where there are fewer, of a sealed memory file.
///
/// # Errors
/// As [`read`], of the seal.
pub fn read_head(fd: BorrowedFd<'_>, limit: usize) -> io::Result<Vec<u8>> {
    let size = check(fd, usize::MAX)?.min(limit);
    let mut bytes = vec![0; size];
    read_at(fd, &mut bytes)?;
    Ok(bytes)
}

fn check(fd: BorrowedFd<'_>, limit: usize) -> io::Result<usize> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    // EINVAL: a file that knows no seals, so no memory file.
    let seals = rustix::fs::fcntl_get_seals(fd).map_err(|_| invalid("not a memory file".to_owned()))?;
    if !seals.contains(SEALS) {
        return Err(invalid("the memory file is not sealed".to_owned()));
    }
    let size = usize::try_from(rustix::fs::fstat(fd)?.st_size).unwrap_or(usize::MAX);
    if size > limit {
        return Err(invalid(format!("{size} bytes, more than {limit}")));
    }
    Ok(size)
}

fn read_at(fd: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match rustix::io::pread(fd.as_fd(), &mut bytes[done..], done as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => done += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_read_and_can_not_be_changed() {
        let fd = sealed("test", b"plan").expect("sealed");
        assert_eq!(read(fd.as_fd(), 4).expect("read"), b"plan");
        assert_eq!(read_head(fd.as_fd(), 2).expect("head"), b"pl");
        assert_eq!(read(fd.as_fd(), 3).expect_err("too large").kind(), io::ErrorKind::InvalidData);
        assert_eq!(File::from(fd).write(b"x").expect_err("sealed").raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn an_unsealed_file_is_refused() {
        let fd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("memfd");
        assert_eq!(read(fd.as_fd(), 4).expect_err("unsealed").kind(), io::ErrorKind::InvalidData);
        let file = File::open("/proc/self/exe").expect("a file");
        assert_eq!(read(file.as_fd(), 4).expect_err("a disk file").kind(), io::ErrorKind::InvalidData);
    }
}
