//! Paths below a root that nothing inside the root can lead out of.
//!
//! Every look-up goes through openat2(2) (Linux 5.6) with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`: absolute links and
//! `..` stay inside, and links such as `/proc/self/fd/3` are refused. Nothing is looked up twice: callers keep the handle
//! that they got and work on it, so a rename between two steps changes nothing.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use berth_guard::Guard;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags};

pub use rustix::fs::ResolveFlags as Resolve;
use rustix::io::Errno;

/// How often a look-up is repeated when renames elsewhere make the kernel unsure whether `..` stayed inside (EAGAIN).
const RETRIES: u32 = 64;
/// Dangling links that [`Root::mkdir_all`] follows itself, as many as the kernel follows.
const LINKS: u32 = 40;

/// A folder that is `/` for everything looked up through it.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
}

impl Root {
    /// Opens `dir` (a path of the caller's own, links followed) as a root.
    ///
    /// # Errors
    /// What open(2) answers.
    pub fn open(dir: impl AsRef<Path>) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { dir: rustix::fs::open(dir.as_ref(), flags, Mode::empty())? })
    }

    /// Takes a handle of a folder as a root.
    pub fn from_fd(dir: OwnedFd) -> Self {
        Self { dir }
    }

    /// Gives the handle back.
    pub fn into_fd(self) -> OwnedFd {
        self.dir
    }

    /// A handle (`O_PATH`) of whatever is at `path`, links followed inside the root.
    ///
    /// # Errors
    /// What openat2(2) answers: `NotFound`, `ELOOP` for a magic link, `EAGAIN` after too many races.
    pub fn open_path(&self, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
        self.resolve(path.as_ref(), OFlags::PATH, Mode::empty(), ResolveFlags::empty())
    }

    /// As [`Root::open_path`], but the last component is not followed when it is a link.
    ///
    /// # Errors
    /// As [`Root::open_path`].
    pub fn open_path_nofollow(&self, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
        self.resolve(path.as_ref(), OFlags::PATH | OFlags::NOFOLLOW, Mode::empty(), ResolveFlags::empty())
    }

    /// As [`Root::open_path`], refusing any link on the way (`ELOOP`).
    ///
    /// # Errors
    /// As [`Root::open_path`].
    pub fn open_path_no_links(&self, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
        self.resolve(path.as_ref(), OFlags::PATH, Mode::empty(), ResolveFlags::NO_SYMLINKS)
    }

    /// Opens a file for reading or writing; `mode` matters with [`OFlags::CREATE`] only.
    ///
    /// # Errors
    /// What openat2(2) answers.
    pub fn open_file(&self, path: impl AsRef<Path>, flags: OFlags, mode: Mode) -> io::Result<File> {
        self.resolve(path.as_ref(), flags, mode, ResolveFlags::empty()).map(File::from)
    }

    /// Reads a regular file of at most `limit` bytes. Never blocks on a FIFO or a device.
    ///
    /// # Errors
    /// What openat2(2) and read(2) answer, [`io::ErrorKind::InvalidData`] for a larger file and
    /// [`io::ErrorKind::InvalidInput`] for something that is no regular file.
    pub fn read(&self, path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self.open_file(path, flags, Mode::empty())?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("file is larger than {limit} bytes")));
        }
        Ok(bytes)
    }

    /// The folder at `path`, made with all its parents where missing (`mode`, less the umask); a handle of it.
    /// Dangling links on the way are followed inside the root, and what they point to is made.
    ///
    /// # Errors
    /// What openat2(2) and mkdirat(2) answer; `NotADirectory` when something else is in the way.
    pub fn mkdir_all(&self, path: impl AsRef<Path>, mode: Mode) -> io::Result<OwnedFd> {
        let mut wanted = path.as_ref().to_path_buf();
        for _ in 0..LINKS {
            match self.mkdir_until_link(&wanted, mode)? {
                Made::Folder(folder) => return Ok(folder),
                Made::Elsewhere(path) => wanted = path,
            }
        }
        Err(Errno::LOOP.into())
    }

    /// A handle of the folder that holds `path` (which must exist), and the last component.
    ///
    /// # Errors
    /// As [`Root::open_path`]; [`io::ErrorKind::InvalidInput`] when `path` ends in no name.
    pub fn parent(&self, path: impl AsRef<Path>) -> io::Result<(OwnedFd, OsString)> {
        let (parent, name) = split(path.as_ref())?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        Ok((self.resolve(parent, flags, Mode::empty(), ResolveFlags::empty())?, name.to_owned()))
    }

    /// As [`Root::parent`], making the folder with [`Root::mkdir_all`] where it is missing.
    ///
    /// # Errors
    /// As both.
    pub fn make_parent(&self, path: impl AsRef<Path>, mode: Mode) -> io::Result<(OwnedFd, OsString)> {
        let (parent, name) = split(path.as_ref())?;
        Ok((self.mkdir_all(parent, mode)?, name.to_owned()))
    }

    /// A handle (`O_PATH`) of the file at `path`, an empty one made with its parents where nothing is: a place to mount
    /// a file on. A dangling link is not followed but refused (`AlreadyExists`).
    ///
    /// # Errors
    /// What openat2(2) answers.
    pub fn touch(&self, path: impl AsRef<Path>, mode: Mode) -> io::Result<OwnedFd> {
        let path = path.as_ref();
        match self.open_path(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let (parent, name) = self.make_parent(path, Mode::from_raw_mode(0o755))?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&parent, name.as_os_str(), flags, mode)?;
        // The same file by descriptor: a handle without rights to write.
        drop(made);
        self.open_path_nofollow(path)
    }

    fn resolve(&self, path: &Path, flags: OFlags, mode: Mode, extra: ResolveFlags) -> io::Result<OwnedFd> {
        if !Guard::InRoot.stands() {
            let path = path.strip_prefix("/").unwrap_or(path);
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            return open_below(self.dir.as_fd(), path, flags, mode, extra);
        }
        open_below(self.dir.as_fd(), path, flags, mode, ResolveFlags::IN_ROOT | extra)
    }

    /// Walks prefix by prefix and makes what is missing, up to the first dangling link.
    fn mkdir_until_link(&self, path: &Path, mode: Mode) -> io::Result<Made> {
        let folder = OFlags::PATH | OFlags::DIRECTORY;
        match self.resolve(path, folder, Mode::empty(), ResolveFlags::empty()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other.map(Made::Folder),
        }
        let mut prefix = PathBuf::from("/");
        let mut current = self.resolve(&prefix, folder, Mode::empty(), ResolveFlags::empty())?;
        let mut components = path.components();
        while let Some(component) = components.next() {
            let name = match component {
                Component::Normal(name) => name,
                Component::ParentDir => OsStr::new(".."),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
            };
            let next = prefix.join(name);
            current = match self.resolve(&next, folder, Mode::empty(), ResolveFlags::empty()) {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match rustix::fs::mkdirat(&current, name, mode) {
                        Ok(()) => {}
                        Err(Errno::EXIST) => {
                            if let Some(target) = link_target(current.as_fd(), name)? {
                                return Ok(Made::Elsewhere(prefix.join(target).join(components.as_path())));
                            }
                        }
                        Err(error) => return Err(error.into()),
                    }
                    self.resolve(&next, folder, Mode::empty(), ResolveFlags::empty())?
                }
                Err(error) => return Err(error),
            };
            prefix = next;
        }
        Ok(Made::Folder(current))
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

enum Made {
    Folder(OwnedFd),
    Elsewhere(PathBuf),
}

/// Opens `path` below `dir` by openat2(2), repeating what lost a race. `O_CLOEXEC` and `RESOLVE_NO_MAGICLINKS` are added.
///
/// # Errors
/// What openat2(2) answers.
pub fn open_below(
    dir: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    // openat2 refuses a mode that would be ignored, unlike open.
    let mode = if flags.intersects(OFlags::CREATE | OFlags::TMPFILE) { mode } else { Mode::empty() };
    let resolve = resolve | ResolveFlags::NO_MAGICLINKS;
    let mut last = Errno::AGAIN;
    for _ in 0..RETRIES {
        match rustix::fs::openat2(dir, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(error @ (Errno::AGAIN | Errno::INTR)) => last = error,
            other => return Ok(other?),
        }
    }
    Err(last.into())
}

/// Where the link `name` in `folder` leads; `None` for what is no link.
///
/// # Errors
/// What readlinkat(2) answers.
pub fn link_target(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<PathBuf>> {
    match rustix::fs::readlinkat(folder, name, Vec::new()) {
        Ok(target) => Ok(Some(PathBuf::from(OsStr::from_bytes(target.as_bytes())))),
        // No link (any more): the caller looks again.
        Err(Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let missing = || io::Error::new(io::ErrorKind::InvalidInput, "the path ends in no name");
    let name = path.file_name().ok_or_else(missing)?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("/"));
    Ok((parent, name))
}

/// What kind of thing a handle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    pub kind: FileType,
    pub inode: u64,
    pub device: u64,
    /// Device number, of device nodes.
    pub major: u32,
    pub minor: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Facts {
    pub fn is_folder(&self) -> bool {
        self.kind == FileType::Directory
    }

    pub fn is_character_device(&self, major: u32, minor: u32) -> bool {
        self.kind == FileType::CharacterDevice && self.major == major && self.minor == minor
    }

    pub fn is_block_device(&self, major: u32, minor: u32) -> bool {
        self.kind == FileType::BlockDevice && self.major == major && self.minor == minor
    }

    pub fn is_file(&self) -> bool {
        self.kind == FileType::RegularFile
    }

    pub fn is_fifo(&self) -> bool {
        self.kind == FileType::Fifo
    }

    pub fn is_link(&self) -> bool {
        self.kind == FileType::Symlink
    }
}

/// fstat(2), on an `O_PATH` handle too.
///
/// # Errors
/// What the kernel answers.
pub fn facts(fd: BorrowedFd<'_>) -> io::Result<Facts> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(Facts {
        kind: FileType::from_raw_mode(stat.st_mode),
        inode: stat.st_ino,
        device: stat.st_dev,
        major: rustix::fs::major(stat.st_rdev),
        minor: rustix::fs::minor(stat.st_rdev),
        uid: stat.st_uid,
        gid: stat.st_gid,
    })
}

/// A handle of `name` in `folder`, which is not followed when it is a link.
///
/// # Errors
/// What openat(2) answers.
pub fn open_child(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(folder, name, flags, Mode::empty())?)
}

/// The names in a folder, without `.` and `..`.
///
/// # Errors
/// What openat(2) and getdents64(2) answer.
pub fn names(folder: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = rustix::fs::openat(folder, ".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&open)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Gives the folder behind one handle the mode and the owner of another's.
///
/// # Errors
/// What fchownat(2) and fchmodat(2) answer.
pub fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    give(to, stat.st_uid, stat.st_gid)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    Ok(rustix::fs::chmodat(to, ".", mode, AtFlags::empty())?)
}

/// A copy of what is no folder and no link as `name` in `folder`, with its mode and owner; sockets are left out.
///
/// # Errors
/// What openat(2), read(2), write(2) and mknodat(2) answer.
pub fn copy_file(from: BorrowedFd<'_>, folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    if kind == FileType::Socket {
        return Ok(());
    }
    if kind == FileType::RegularFile {
        // Reopened through the handle: the same file, whatever has become of its name.
        let mut source = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&from)))?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut copy = File::from(rustix::fs::openat(folder, name, flags, mode)?);
        io::copy(&mut source, &mut copy)?;
    } else {
        rustix::fs::mknodat(folder, name, kind, mode, stat.st_rdev)?;
    }
    let made = open_child(folder, name)?;
    give(made.as_fd(), stat.st_uid, stat.st_gid)?;
    Ok(rustix::fs::chmodat(folder, name, mode, AtFlags::empty())?)
}

/// Whether a handle lies on procfs itself (fstatfs(2), `PROC_SUPER_MAGIC`).
///
/// # Errors
/// What the kernel answers.
pub fn is_procfs(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(fd)?.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

/// Whether the mount that a handle lies on is read-only.
///
/// # Errors
/// What the kernel answers.
pub fn is_readonly(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(rustix::fs::fstatvfs(fd)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// A device node `name` in `folder`, with `mode` less the umask, which the caller has cleared. Nothing is done by the name
/// again that would follow a link: somebody else may have put one there by then.
///
/// # Errors
/// What mknodat(2) and fchownat(2) answer; `PermissionDenied` where nodes can't be made.
#[allow(clippy::too_many_arguments)]
pub fn make_device(
    folder: BorrowedFd<'_>,
    name: &OsStr,
    character: bool,
    major: u32,
    minor: u32,
    mode: Mode,
    uid: u32,
    gid: u32,
) -> io::Result<()> {
    let kind = if character { FileType::CharacterDevice } else { FileType::BlockDevice };
    rustix::fs::mknodat(folder, name, kind, mode, rustix::fs::makedev(major, minor))?;
    Ok(rustix::fs::chownat(
        folder,
        name,
        Some(rustix::fs::Uid::from_raw(uid)),
        Some(rustix::fs::Gid::from_raw(gid)),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// Gives what a handle (`O_PATH` too) stands for to a user and a group (fchownat(2) with `AT_EMPTY_PATH`).
///
/// # Errors
/// What the kernel answers.
pub fn give(handle: BorrowedFd<'_>, uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    Ok(rustix::fs::chownat(handle, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?)
}

/// Renames within a folder of the caller's own; what is at `to` is replaced.
///
/// # Errors
/// What renameat(2) answers.
pub fn rename(folder: BorrowedFd<'_>, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    Ok(rustix::fs::renameat(folder, from.as_ref(), folder, to.as_ref())?)
}

/// Removes a file of a folder of the caller's own.
///
/// # Errors
/// What unlinkat(2) answers.
pub fn remove(folder: BorrowedFd<'_>, path: impl AsRef<Path>) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(folder, path.as_ref(), AtFlags::empty())?)
}

/// Makes the folder `name` in `folder`, which must not have it, and opens it.
///
/// # Errors
/// What mkdirat(2) and openat(2) answer.
pub fn make_folder(folder: BorrowedFd<'_>, name: &OsStr, mode: Mode) -> io::Result<OwnedFd> {
    rustix::fs::mkdirat(folder, name, mode)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(folder, name, flags, Mode::empty())?)
}

/// A symbolic link `name` in `folder`.
///
/// # Errors
/// What symlinkat(2) answers.
pub fn make_link(folder: BorrowedFd<'_>, name: &OsStr, target: &Path) -> io::Result<()> {
    Ok(rustix::fs::symlinkat(target, folder, name)?)
}

#[cfg(test)]
mod tests;
