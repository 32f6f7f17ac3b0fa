//! `/etc/passwd` and `/etc/group` of an image, read through its layers without a mount.
//!
//! The lookup does in user space what overlayfs would do: the topmost entry wins, a whiteout ends the search, an opaque
//! folder hides those below, symbolic links are followed inside the image. Every step opens one name relative to a
//! descriptor and without following links, so no image can lead it out of its layers.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::{Arc, Mutex, PoisonError};

use berth_guard::Guard;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, readlinkat, statat};

use crate::error::StoreError;
use crate::store::{Image, LayerKey, Store};

/// How much of one file is read.
const FILE_LIMIT: u64 = 1 << 20;
/// Images with larger files than this are read again each time.
const CACHED_LIMIT: usize = 64 << 10;
/// As the kernel's MAXSYMLINKS.
const LINK_LIMIT: usize = 40;

/// The user database of an image. A file that is missing or no regular file is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users {
    /// Text of `/etc/passwd`.
    pub passwd: String,
    /// Text of `/etc/group`.
    pub group: String,
}

#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<HashMap<String, Arc<Users>>>);

impl Cache {
    fn get(&self, image: &str) -> Option<Arc<Users>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(image).cloned()
    }

    fn put(&self, image: &str, users: &Arc<Users>) {
        if users.passwd.len() + users.group.len() <= CACHED_LIMIT {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(image.to_owned(), Arc::clone(users));
        }
    }

    pub(crate) fn forget(&self, image: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(image);
    }
}

impl Store {
    /// The user database of `image`.
    ///
    /// # Errors
    /// [`StoreError::FileTooLarge`] past 1 MiB, [`StoreError::Missing`] when a layer is gone, [`StoreError::Io`].
    pub fn users(&self, image: &Image) -> Result<Arc<Users>, StoreError> {
        if let Some(users) = self.inner.users.get(&image.id) {
            return Ok(users);
        }
        let layers = self.open_layers(&image.layers)?;
        let text = |path: &str| -> Result<String, StoreError> {
            let too_large =
                || StoreError::FileTooLarge { image: image.id.clone(), path: path.to_owned(), limit: FILE_LIMIT };
            let bytes = read(&layers, path).map_err(StoreError::io("read", path.as_ref()))?.ok_or_else(too_large)?;
            // Names in other encodings can't be asked for through CRI, but must not hide the others.
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let users = Arc::new(Users { passwd: text("etc/passwd")?, group: text("etc/group")? });
        self.inner.users.put(&image.id, &users);
        Ok(users)
    }

    /// The roots of the layers `keys` (bottom first), top first.
    pub(crate) fn open_layers(&self, keys: &[LayerKey]) -> Result<Vec<OwnedFd>, StoreError> {
        let mut paths = Vec::with_capacity(keys.len());
        {
            let index = self.index();
            for key in keys.iter().rev() {
                let layer = index.layers.get(key).ok_or_else(|| StoreError::Missing { what: key.to_string() })?;
                paths.push(self.layer_path(layer.number));
            }
        }
        let open = |path: &std::path::PathBuf| {
            rustix::fs::open(path, FOLDER, Mode::empty()).map_err(|e| StoreError::io("open", path)(e.into()))
        };
        paths.iter().map(open).collect()
    }
}

const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// What a path names in an image.
#[derive(Debug)]
pub(crate) enum Found {
    Nothing,
    /// A folder: its parts in the layers, top first.
    Folder(Vec<OwnedFd>),
    /// Something else: the folder that holds it, and its name.
    Other(OwnedFd, OsString),
}

/// The bytes of a regular file; empty when it is none, `None` when it is past the limit.
fn read(layers: &[OwnedFd], path: &str) -> io::Result<Option<Vec<u8>>> {
    let Found::Other(folder, name) = lookup(layers, OsStr::new(path))? else { return Ok(Some(Vec::new())) };
    // Looked at before it is opened: opening a device or FIFO can block or act.
    if FileType::from_raw_mode(statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode) != FileType::RegularFile {
        return Ok(Some(Vec::new()));
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(&folder, &name, flags, Mode::empty())?);
    let mut bytes = Vec::new();
    if !Guard::UsersBounded.stands() {
        (&file).read_to_end(&mut bytes)?;
        return Ok(Some(bytes));
    }
    file.take(FILE_LIMIT + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= FILE_LIMIT).then_some(bytes))
}

/// Looks `path` up in `layers` (top first).
pub(crate) fn lookup(layers: &[OwnedFd], path: &OsStr) -> io::Result<Found> {
    // Folders from the root to here, each with its parts, so that ".." of a link can go back.
    let mut trail: Vec<Vec<OwnedFd>> = vec![clone_all(layers)?];
    let mut rest: Vec<OsString> = components(path).rev().collect();
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name == ".." {
            if trail.len() > 1 {
                trail.pop();
            }
            continue;
        }
        let Some(here) = trail.last() else { return Ok(Found::Nothing) };
        match step(here, &name)? {
            Found::Nothing => return Ok(Found::Nothing),
            Found::Folder(parts) => trail.push(parts),
            Found::Other(folder, name) => {
                let stat = statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                    return Ok(if rest.is_empty() { Found::Other(folder, name) } else { Found::Nothing });
                }
                links += 1;
                if links > LINK_LIMIT {
                    return Ok(Found::Nothing);
                }
                let target = OsString::from_vec(readlinkat(&folder, &name, Vec::new())?.into_bytes());
                if target.as_bytes().starts_with(b"/") {
                    trail.truncate(1);
                }
                rest.extend(components(&target).rev().collect::<Vec<_>>());
            }
        }
    }
    Ok(trail.pop().map_or(Found::Nothing, Found::Folder))
}

/// One name in the parts of one folder, top first.
fn step(parts: &[OwnedFd], name: &OsStr) -> io::Result<Found> {
    let mut folders = Vec::new();
    for part in parts {
        let stat = match statat(part, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice if stat.st_rdev == 0 => break,
            FileType::Directory => {
                let folder = openat(part, name, FOLDER, Mode::empty())?;
                let opaque = is_opaque(&folder)?;
                folders.push(folder);
                if opaque {
                    break;
                }
            }
            _ if folders.is_empty() => return Ok(Found::Other(part.try_clone()?, name.to_owned())),
            // A folder above something else hides it.
            _ => break,
        }
    }
    Ok(if folders.is_empty() { Found::Nothing } else { Found::Folder(folders) })
}

fn is_opaque(folder: &OwnedFd) -> io::Result<bool> {
    let mut value = [0u8; 1];
    match rustix::fs::fgetxattr(folder.as_fd(), "trusted.overlay.opaque", &mut value[..]) {
        Ok(_) => Ok(value == *b"y"),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => Ok(false),
        Err(rustix::io::Errno::RANGE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn components(path: &OsStr) -> impl DoubleEndedIterator<Item = OsString> {
    let parts = path.as_bytes().split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    parts.map(|part| OsStr::from_bytes(part).to_owned()).collect::<Vec<_>>().into_iter()
}

fn clone_all(layers: &[OwnedFd]) -> io::Result<Vec<OwnedFd>> {
    layers.iter().map(OwnedFd::try_clone).collect()
}
