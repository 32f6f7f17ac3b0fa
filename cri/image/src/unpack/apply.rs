//! Making the entries of an archive. Runs confined: the root it works below is the process's own.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use berth_guard::Guard;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod,
    fchown, fsetxattr, linkat, makedev, mkdirat, mknodat, openat, openat2, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::entry::{self, Action, Device, Metadata, Place};
use super::report::{FOLDERS_LIMIT, Name, Report};

/// Why an archive was not applied.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is one that we refuse.
    Archive(String),
    /// Something of ours failed.
    Io(String, io::Error),
}

impl Refusal {
    pub(super) fn entry(name: &[u8], reason: &str) -> Self {
        let name: String = String::from_utf8_lossy(name).chars().take(200).collect();
        Self::Archive(format!("entry {name:?}: {reason}"))
    }

    fn io(path: &Path) -> impl FnOnce(Errno) -> Self {
        let path = path.to_path_buf();
        move |error| Self::Io(format!("entry {path:?}"), error.into())
    }
}

const PATH_FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const BLOCK: u64 = 4096;

#[derive(Debug)]
pub(super) struct Applier {
    root: OwnedFd,
    /// The folder of the last entry: archives list a folder's entries together.
    last: Option<(PathBuf, OwnedFd)>,
    entries_left: u64,
    bytes_left: u64,
    /// Folders' times, set last: making an entry in a folder changes them.
    times: Vec<(PathBuf, i64, u32)>,
    opaque: BTreeSet<PathBuf>,
    implied: BTreeSet<PathBuf>,
    report: Report,
}

impl Applier {
    pub(super) fn new(root: OwnedFd, entries: u64, bytes: u64) -> Self {
        Self {
            root,
            last: None,
            entries_left: entries,
            bytes_left: bytes,
            times: Vec::new(),
            opaque: BTreeSet::new(),
            implied: BTreeSet::new(),
            // The root folder.
            report: Report { inodes: 1, bytes: BLOCK, ..Report::default() },
        }
    }

    /// Applies all entries of `archive`.
    pub(super) fn apply(mut self, archive: impl Read) -> Result<Report, Refusal> {
        let damaged = |error: io::Error| Refusal::Archive(format!("damaged archive: {error}"));
        let mut archive = tar::Archive::new(archive);
        for entry in archive.entries().map_err(damaged)? {
            let mut entry = entry.map_err(damaged)?;
            let left = self.entries_left.checked_sub(1);
            if Guard::EntriesBounded.stands() {
                self.entries_left = left.ok_or_else(|| Refusal::Archive("too many entries".into()))?;
            }
            let (action, metadata) = entry::read(&mut entry)?;
            self.report.skipped_attributes += metadata.skipped;
            self.one(action, &metadata, &mut entry)?;
        }
        for (path, seconds, nanoseconds) in std::mem::take(&mut self.times) {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            match utimensat(&self.root, below(&path), &times(seconds, nanoseconds), flags) {
                // A later entry took its place.
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(Refusal::io(&path)(error)),
            }
        }
        if self.opaque.len() + self.implied.len() > FOLDERS_LIMIT {
            return Err(Refusal::Archive(format!("more than {FOLDERS_LIMIT} folders without an entry")));
        }
        self.report.opaque = self.opaque.iter().map(|path| Name::new(path)).collect();
        self.report.implied = self.implied.iter().map(|path| Name::new(path)).collect();
        Ok(self.report)
    }

    fn one(
        &mut self,
        action: Action,
        metadata: &Metadata,
        entry: &mut tar::Entry<'_, impl Read>,
    ) -> Result<(), Refusal> {
        match action {
            Action::Skip => Ok(()),
            Action::Folder(place) => self.folder(&place, metadata),
            Action::File(place) => self.file(&place, metadata, entry),
            Action::Symlink(place, target) => {
                let (folder, name) = self.make_room(&place)?;
                symlinkat(&target, &folder, name).map_err(Refusal::io(&place.path()))?;
                self.count(0);
                let with_mode = !Guard::LinksKeepMode.stands();
                self.finish_by_name(&folder, name, &place, metadata, with_mode)
            }
            Action::Hardlink(place, target) => self.hardlink(&place, &target),
            Action::Device(place, device) => {
                let (folder, name) = self.make_room(&place)?;
                let (kind, number) = match device {
                    Device::Character(major, minor) => (FileType::CharacterDevice, makedev(major, minor)),
                    Device::Block(major, minor) => (FileType::BlockDevice, makedev(major, minor)),
                    Device::Fifo => (FileType::Fifo, 0),
                };
                let mode = Mode::from_raw_mode(metadata.mode);
                mknodat(&folder, name, kind, mode, number).map_err(Refusal::io(&place.path()))?;
                self.count(0);
                self.finish_by_name(&folder, name, &place, metadata, true)
            }
            Action::Whiteout(place) => self.whiteout(&place),
            Action::Opaque(place) => {
                let path = place.path();
                self.parent(&path)?;
                self.opaque.insert(path);
                Ok(())
            }
        }
    }

    fn folder(&mut self, place: &Place, metadata: &Metadata) -> Result<(), Refusal> {
        let path = place.path();
        if let Some(name) = &place.name {
            let folder = self.parent(&place.folder)?;
            match mkdirat(&folder, name, Mode::from_raw_mode(0o700)) {
                Ok(()) => self.count(BLOCK),
                Err(Errno::EXIST) => {
                    let stat = stat(&folder, name, &path)?.ok_or_else(|| Refusal::io(&path)(Errno::NOENT))?;
                    if kind(&stat) != FileType::Directory {
                        unlinkat(&folder, name, AtFlags::empty()).map_err(Refusal::io(&path))?;
                        self.last = None;
                        mkdirat(&folder, name, Mode::from_raw_mode(0o700)).map_err(Refusal::io(&path))?;
                        self.count(BLOCK);
                        // What stood here hid the layers below; an ordinary folder would not.
                        self.opaque.insert(path.clone());
                    }
                }
                Err(error) => return Err(Refusal::io(&path)(error)),
            }
            self.implied.remove(&path);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = openat(&folder, name, flags, Mode::empty()).map_err(Refusal::io(&path))?;
            self.finish(&made, &path, metadata)?;
        } else {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = openat(&self.root, ".", flags, Mode::empty()).map_err(Refusal::io(&path))?;
            self.finish(&root, &path, metadata)?;
        }
        self.times.push((path, metadata.seconds, metadata.nanoseconds));
        Ok(())
    }

    fn file(
        &mut self,
        place: &Place,
        metadata: &Metadata,
        entry: &mut tar::Entry<'_, impl Read>,
    ) -> Result<(), Refusal> {
        let size = entry.size();
        let left = self.bytes_left.checked_sub(size);
        self.bytes_left =
            left.ok_or_else(|| Refusal::Archive("unpacks to more bytes than a layer of its size may".into()))?;
        let path = place.path();
        let (folder, name) = self.make_room(place)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(&folder, name, flags, Mode::from_raw_mode(0o600)).map_err(Refusal::io(&path))?;
        let mut file = File::from(made);
        let copied = copy(entry, &mut file, &path)?;
        if copied != size {
            return Err(Refusal::Archive(format!("entry {path:?}: the archive ends after {copied} of {size} bytes")));
        }
        self.count(size);
        self.finish(file.as_fd(), &path, metadata)?;
        let stamps = times(metadata.seconds, metadata.nanoseconds);
        rustix::fs::futimens(&file, &stamps).map_err(Refusal::io(&path))
    }

    fn hardlink(&mut self, place: &Place, target: &Place) -> Result<(), Refusal> {
        let path = place.path();
        let refuse = |reason: &str| Refusal::Archive(format!("entry {path:?}: {reason}"));
        let Some(target_name) = &target.name else { return Err(refuse("a hard link to the root")) };
        if target == place {
            return Err(refuse("a hard link to itself"));
        }
        let missing = || refuse("a hard link to what is not in this layer");
        let from = match self.open(&target.folder) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(missing()),
            other => other.map_err(Refusal::io(&path))?,
        };
        let stat = stat(&from, target_name, &path)?.ok_or_else(missing)?;
        if is_whiteout(&stat) || kind(&stat) == FileType::Directory {
            return Err(missing());
        }
        let (folder, name) = self.make_room(place)?;
        linkat(&from, target_name, &folder, name, AtFlags::empty()).map_err(Refusal::io(&path))
    }

    /// overlayfs' whiteout is a character device 0/0. What this layer itself has under the name stays: a whiteout is
    /// about the layers below.
    fn whiteout(&mut self, place: &Place) -> Result<(), Refusal> {
        let path = place.path();
        let Some(name) = &place.name else { return Ok(()) };
        let folder = self.parent(&place.folder)?;
        match stat(&folder, name, &path)? {
            Some(stat) if kind(&stat) == FileType::Directory => {
                self.opaque.insert(path);
            }
            Some(_) => {}
            None => {
                let mode = Mode::empty();
                mknodat(&folder, name, FileType::CharacterDevice, mode, makedev(0, 0)).map_err(Refusal::io(&path))?;
                self.count(0);
            }
        }
        Ok(())
    }

    /// The folder of `place`, with whatever stood under its name removed.
    fn make_room<'a>(&mut self, place: &'a Place) -> Result<(OwnedFd, &'a OsStr), Refusal> {
        let path = place.path();
        let Some(name) = &place.name else { return Err(Refusal::Archive("an entry without a name".into())) };
        let folder = self.parent(&place.folder)?;
        match unlinkat(&folder, name, AtFlags::empty()) {
            Err(Errno::NOENT) => {}
            // What was removed may have been a link on the way to the last folder.
            Ok(()) => self.last = None,
            Err(Errno::ISDIR) => {
                remove_folder(&folder, name).map_err(Refusal::io(&path))?;
                self.last = None;
                for folders in [&mut self.opaque, &mut self.implied] {
                    folders.retain(|folder| !folder.starts_with(&path));
                }
            }
            Err(error) => return Err(Refusal::io(&path)(error)),
        }
        Ok((folder, name))
    }

    /// Opens the folder `path`, making it where the archive has not.
    fn parent(&mut self, path: &Path) -> Result<OwnedFd, Refusal> {
        if let Some((last, fd)) = &self.last
            && last == path
        {
            return fd.try_clone().map_err(|error| Refusal::Io(format!("entry {path:?}"), error));
        }
        let fd = match self.open(path) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(path)?,
            Err(error) => return Err(unopened(path, error)),
        };
        let kept = fd.try_clone().map_err(|error| Refusal::Io(format!("entry {path:?}"), error))?;
        self.last = Some((path.to_path_buf(), kept));
        Ok(fd)
    }

    fn make_parents(&mut self, path: &Path) -> Result<OwnedFd, Refusal> {
        let mut walked = PathBuf::new();
        let mut folder = self.open(&walked).map_err(Refusal::io(path))?;
        for name in path {
            walked.push(name);
            folder = match self.open(&walked) {
                Ok(next) => next,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    match stat(&folder, name, path)? {
                        None => {}
                        Some(stat) if is_whiteout(&stat) => {
                            unlinkat(&folder, name, AtFlags::empty()).map_err(Refusal::io(&walked))?;
                            self.opaque.insert(walked.clone());
                        }
                        Some(_) => {
                            return Err(Refusal::Archive(format!("entry {path:?}: {walked:?} is no folder")));
                        }
                    }
                    mkdirat(&folder, name, Mode::from_raw_mode(0o755)).map_err(Refusal::io(&walked))?;
                    self.count(BLOCK);
                    self.implied.insert(walked.clone());
                    if self.implied.len() > FOLDERS_LIMIT {
                        return Err(Refusal::Archive(format!("more than {FOLDERS_LIMIT} folders without an entry")));
                    }
                    self.open(&walked).map_err(Refusal::io(&walked))?
                }
                Err(error) => return Err(unopened(&walked, error)),
            };
        }
        Ok(folder)
    }

    /// Opens a folder below the root, following this layer's own links as a container would.
    fn open(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let mut resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        if !Guard::UnpackerInRoot.stands() {
            resolve = ResolveFlags::empty();
        }
        openat2(&self.root, below(path), PATH_FOLDER, Mode::empty(), resolve)
    }

    /// Owner, mode and attributes by descriptor. The order matters: changing the owner clears set-user-id bits and file
    /// capabilities.
    fn finish(&mut self, fd: impl AsFd, path: &Path, metadata: &Metadata) -> Result<(), Refusal> {
        let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
        fchown(&fd, Some(uid), Some(gid)).map_err(Refusal::io(path))?;
        fchmod(&fd, Mode::from_raw_mode(metadata.mode)).map_err(Refusal::io(path))?;
        for (name, value) in &metadata.attributes {
            match fsetxattr(&fd, name.as_os_str(), value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::NOTSUP) => self.report.skipped_attributes += 1,
                Err(error) => return Err(Refusal::io(path)(error)),
            }
        }
        Ok(())
    }

    /// Owner and times of what is not to be opened. `with_mode`: made with a mode that the change of owner may have cut.
    fn finish_by_name(
        &mut self,
        folder: &OwnedFd,
        name: &OsStr,
        place: &Place,
        metadata: &Metadata,
        with_mode: bool,
    ) -> Result<(), Refusal> {
        let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        chownat(folder, name, Some(uid), Some(gid), flags).map_err(Refusal::io(&place.path()))?;
        if with_mode {
            // Nothing but this process acts here, so the name still means the device that was just made.
            let mode = Mode::from_raw_mode(metadata.mode);
            rustix::fs::chmodat(folder, name, mode, AtFlags::empty()).map_err(Refusal::io(&place.path()))?;
        }
        let stamps = times(metadata.seconds, metadata.nanoseconds);
        utimensat(folder, name, &stamps, flags).map_err(Refusal::io(&place.path()))
    }

    fn count(&mut self, bytes: u64) {
        self.report.inodes += 1;
        self.report.bytes += bytes.div_ceil(BLOCK) * BLOCK;
    }
}

/// Why a folder of the layer can't be opened: its own links may go in circles.
fn unopened(path: &Path, error: Errno) -> Refusal {
    match error {
        Errno::LOOP => Refusal::Archive(format!("entry {path:?}: its links lead nowhere")),
        other => Refusal::io(path)(other),
    }
}

/// Copies an entry's data, telling a damaged archive from a disk that refuses.
fn copy(entry: &mut impl Read, file: &mut File, path: &Path) -> Result<u64, Refusal> {
    let mut buffer = [0; 64 << 10];
    let mut total = 0;
    loop {
        let length = match entry.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(length) => length,
            Err(error) => return Err(Refusal::Archive(format!("entry {path:?}: {error}"))),
        };
        io::Write::write_all(file, &buffer[..length]).map_err(|error| Refusal::Io(format!("entry {path:?}"), error))?;
        total += length as u64;
    }
}

/// Removes a folder with all that is in it, following no link. Its depth is bounded by the length of a name that can be
/// given, and by the descriptors that the process may have.
fn remove_folder(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = openat(parent, name, flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&folder)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    for name in names {
        match unlinkat(&folder, &name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::ISDIR) => remove_folder(&folder, OsStr::from_bytes(name.to_bytes()))?,
            Err(error) => return Err(error),
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

fn stat(folder: &OwnedFd, name: &OsStr, path: &Path) -> Result<Option<Stat>, Refusal> {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(Refusal::io(path)(error)),
    }
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn is_whiteout(stat: &Stat) -> bool {
    kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// A path for the `*at` calls: the root is ".".
fn below(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

fn times(seconds: i64, nanoseconds: u32) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
