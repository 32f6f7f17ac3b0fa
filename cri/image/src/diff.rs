//! What a container has written, as a layer of the OCI image format (image-spec v1.1, layer.md, "Representing Changes").
//!
//! The container may run meanwhile and change the tree under the walk: every folder is opened by its path below the tree
//! without following a link, what vanishes is left out, and a file is written with the size that its header says.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use berth_sys::path::{self, Resolve};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tar::{EntryType, Header};

use crate::error::StoreError;
use crate::store::Store;

/// Longer paths, which a container can make by relative steps, can't be opened by name.
const PATH_LIMIT: usize = 4000;
const ATTRIBUTE_LIMIT: usize = 64 << 10;

const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
const IS_OPAQUE: &str = "trusted.overlay.opaque";

impl Store {
    /// Writes what a container has changed of its image as an archive: new and changed files, whiteouts for removed ones.
    /// `owner` turns the owner of a stored file into the one that the container sees. Sockets are left out, and so are
    /// names that would be taken for whiteouts.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the tree can't be read or `out` can't be written.
    pub fn snapshot_diff(
        &self,
        container: &str,
        owner: &dyn Fn(u32) -> u32,
        out: &mut dyn Write,
    ) -> Result<(), StoreError> {
        let upper = self.container_dir(container)?.join("upper");
        let mut write = || {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::open(&upper, flags, Mode::empty())?;
            let mut diff =
                Diff { root, owner, tar: tar::Builder::new(out), links: HashMap::new(), folders: Vec::new() };
            diff.folders.push(PathBuf::new());
            while let Some(folder) = diff.folders.pop() {
                diff.folder(&folder)?;
            }
            diff.tar.finish()
        };
        write().map_err(StoreError::io("write the changes of", &upper))
    }
}

struct Diff<'a> {
    root: OwnedFd,
    owner: &'a dyn Fn(u32) -> u32,
    tar: tar::Builder<&'a mut dyn Write>,
    /// Where a file with several names was written first, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
    /// Yet to be walked, from the root.
    folders: Vec<PathBuf>,
}

impl Diff<'_> {
    fn folder(&mut self, place: &Path) -> io::Result<()> {
        let found = if place.as_os_str().is_empty() { Path::new(".") } else { place };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let resolve = Resolve::BENEATH | Resolve::NO_SYMLINKS;
        let Some(folder) = there(path::open_below(self.root.as_fd(), found, flags, Mode::empty(), resolve))? else {
            return Ok(());
        };
        if !place.as_os_str().is_empty() {
            self.attributes(&folder)?;
            let mut header = self.header(&rustix::fs::fstat(&folder)?, EntryType::Directory);
            self.tar.append_data(&mut header, place, io::empty())?;
            if attribute(&folder, IS_OPAQUE)?.is_some_and(|value| value == b"y") {
                self.marker(&place.join(OPAQUE))?;
            }
        }
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let place = place.join(name);
            if matches!(name.as_bytes(), b"." | b"..")
                || name.as_bytes().starts_with(WHITEOUT.as_bytes())
                || place.as_os_str().len() > PATH_LIMIT
            {
                continue;
            }
            let found = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from);
            if let Some(stat) = there(found)? {
                self.entry(&folder, name, place, &stat)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, folder: &OwnedFd, name: &OsStr, place: PathBuf, stat: &Stat) -> io::Result<()> {
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            FileType::Directory => {
                self.folders.push(place);
                return Ok(());
            }
            FileType::CharacterDevice if (major, minor) == (0, 0) => {
                let hidden = OsStr::from_bytes(&[WHITEOUT.as_bytes(), name.as_bytes()].concat()).to_owned();
                return self.marker(&place.with_file_name(hidden));
            }
            FileType::Socket | FileType::Unknown => return Ok(()),
            _ => {}
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                let mut header = self.header(stat, EntryType::Link);
                return self.tar.append_link(&mut header, &place, first);
            }
            self.links.insert((stat.st_dev, stat.st_ino), place.clone());
        }
        match kind {
            FileType::RegularFile => self.file(folder, name, &place),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(folder, name, Vec::new()).map_err(io::Error::from);
                let Some(target) = there(target)? else { return Ok(()) };
                let mut header = self.header(stat, EntryType::Symlink);
                self.tar.append_link(&mut header, &place, OsStr::from_bytes(target.to_bytes()))
            }
            other => {
                let entry = match other {
                    FileType::Fifo => EntryType::Fifo,
                    FileType::BlockDevice => EntryType::Block,
                    _ => EntryType::Char,
                };
                let mut header = self.header(stat, entry);
                header.set_device_major(major)?;
                header.set_device_minor(minor)?;
                self.tar.append_data(&mut header, &place, io::empty())
            }
        }
    }

    fn file(&mut self, folder: &OwnedFd, name: &OsStr, place: &Path) -> io::Result<()> {
        // Something else may be there by now, a FIFO for instance.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, name, flags, Mode::empty()).map_err(io::Error::from);
        let Some(file) = there(file)? else { return Ok(()) };
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        self.attributes(&file)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut header = self.header(&stat, EntryType::Regular);
        header.set_size(size);
        self.tar.append_data(&mut header, place, exactly(File::from(file), size))
    }

    /// A file that says something of a name beside it, or of its folder.
    fn marker(&mut self, place: &Path) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_size(0);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        self.tar.append_data(&mut header, place, io::empty())
    }

    fn header(&self, stat: &Stat, kind: EntryType) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid((self.owner)(stat.st_uid).into());
        header.set_gid((self.owner)(stat.st_gid).into());
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        header.set_size(0);
        header
    }

    /// The attributes that a layer may have; those of overlayfs say something of this tree only.
    fn attributes(&mut self, file: &OwnedFd) -> io::Result<()> {
        let mut names = vec![0_u8; ATTRIBUTE_LIMIT];
        let length = match rustix::fs::flistxattr(file, &mut names[..]) {
            Ok(length) => length,
            Err(Errno::NOTSUP) => 0,
            Err(error) => return Err(error.into()),
        };
        let mut kept = Vec::new();
        for name in names[..length].split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok()) {
            if (name == "security.capability" || name.starts_with("user.") && !name.starts_with("user.overlay."))
                && let Some(value) = attribute(file, name)?
            {
                kept.push((format!("SCHILY.xattr.{name}"), value));
            }
        }
        self.tar.append_pax_extensions(kept.iter().map(|(name, value)| (name.as_str(), value.as_slice())))
    }
}

fn attribute(file: &OwnedFd, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0_u8; ATTRIBUTE_LIMIT];
    match rustix::fs::fgetxattr(file, name, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Exactly `size` bytes, whatever becomes of the file meanwhile.
fn exactly(file: impl Read, size: u64) -> impl Read {
    file.take(size).chain(io::repeat(0)).take(size)
}

/// What was found; `None` where the container has removed or replaced it in between.
fn there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => Ok(None),
            _ => Err(error),
        },
    }
}
