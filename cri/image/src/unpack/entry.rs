//! One entry of an archive, checked: a name that can only lie below the root, numbers that fit.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use berth_guard::Guard;
use tar::EntryType;

use super::apply::Refusal;

/// As the kernel's PATH_MAX and NAME_MAX.
const PATH_LIMIT: usize = 4096;
const NAME_LIMIT: usize = 255;
const ATTRIBUTE_LIMIT: usize = 64 << 10;

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A path below the root: its folder, and its name there. The root itself has no name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
    pub(super) name: Option<OsString>,
}

impl Place {
    pub(super) fn path(&self) -> PathBuf {
        match &self.name {
            Some(name) => self.folder.join(name),
            None => PathBuf::new(),
        }
    }
}

/// What an entry asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    Folder(Place),
    File(Place),
    Symlink(Place, OsString),
    Hardlink(Place, Place),
    Device(Place, Device),
    /// Hide what the layers below have here.
    Whiteout(Place),
    /// Hide all that the layers below have in this folder.
    Opaque(Place),
    /// Nothing: an extension header, or bookkeeping of AUFS.
    Skip,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Device {
    Character(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// Owner, mode, time and attributes of an entry.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
    pub(super) seconds: i64,
    pub(super) nanoseconds: u32,
    pub(super) attributes: Vec<(OsString, Vec<u8>)>,
    /// Attributes that are not for us to set.
    pub(super) skipped: u64,
}

/// Reads an entry's header.
pub(super) fn read(entry: &mut tar::Entry<'_, impl Read>) -> Result<(Action, Metadata), Refusal> {
    let name = entry.path_bytes().into_owned();
    let place = place(&name)?;
    let link = entry.link_name_bytes().map(|link| OsStr::from_bytes(&link).to_owned());
    let kind = entry.header().entry_type();
    if kind.is_pax_global_extensions() {
        return Ok((Action::Skip, Metadata::default()));
    }
    let refuse = |reason: &str| Refusal::entry(&name, reason);
    let metadata = metadata(entry, &name)?;
    if let Some(file) = &place.name
        && file.as_bytes().starts_with(WHITEOUT)
    {
        return Ok((whiteout(&place, file, &name)?, metadata));
    }
    let link = || link.filter(|link| !link.is_empty()).ok_or_else(|| refuse("a link without a target"));
    let action = match kind {
        EntryType::Directory => Action::Folder(place),
        _ if place.name.is_none() => return Err(refuse("is not a folder")),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Action::File(place),
        EntryType::Symlink => Action::Symlink(place, link()?),
        EntryType::Link => Action::Hardlink(place, self::place(link()?.as_bytes())?),
        EntryType::Char => {
            device(entry, &name).map(|(major, minor)| Action::Device(place, Device::Character(major, minor)))?
        }
        EntryType::Block => {
            device(entry, &name).map(|(major, minor)| Action::Device(place, Device::Block(major, minor)))?
        }
        EntryType::Fifo => Action::Device(place, Device::Fifo),
        other => return Err(refuse(&format!("entries of type {:?} are not supported", char::from(other.as_byte())))),
    };
    Ok((action, metadata))
}

/// Where a name of an archive lies. A leading slash is dropped; a way up is refused.
pub(super) fn place(name: &[u8]) -> Result<Place, Refusal> {
    let refuse = |reason: &str| Refusal::entry(name, reason);
    if name.len() > PATH_LIMIT {
        return Err(refuse("the name is too long"));
    }
    if name.contains(&0) {
        return Err(refuse("a zero byte in the name"));
    }
    let mut parts: Vec<&[u8]> = name.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    for part in &parts {
        match *part {
            b".." if Guard::NoParents.stands() => return Err(refuse("'..' in the name")),
            part if part.len() > NAME_LIMIT => return Err(refuse("the name is too long")),
            _ => {}
        }
    }
    let name = parts.pop().map(|name| OsStr::from_bytes(name).to_owned());
    Ok(Place { folder: parts.iter().map(|part| OsStr::from_bytes(part)).collect(), name })
}

/// The OCI layer rules: `.wh.NAME` hides NAME, `.wh..wh..opq` all of a folder, other `.wh..wh.` names mean nothing.
fn whiteout(place: &Place, file: &OsStr, name: &[u8]) -> Result<Action, Refusal> {
    let file = file.as_bytes();
    if file == OPAQUE {
        return self::place(place.folder.as_os_str().as_bytes()).map(Action::Opaque);
    }
    if file.starts_with(WHITEOUT_META) {
        return Ok(Action::Skip);
    }
    match &file[WHITEOUT.len()..] {
        b"" | b"." | b".." => Err(Refusal::entry(name, "a whiteout of no name")),
        hidden => Ok(Action::Whiteout(Place {
            folder: place.folder.clone(),
            name: Some(OsStr::from_bytes(hidden).to_owned()),
        })),
    }
}

fn device(entry: &tar::Entry<'_, impl Read>, name: &[u8]) -> Result<(u32, u32), Refusal> {
    let header = entry.header();
    match (header.device_major(), header.device_minor()) {
        // The kernel's limits: 12 bits and 20 bits.
        (Ok(Some(major)), Ok(Some(minor))) if major < 1 << 12 && minor < 1 << 20 => Ok((major, minor)),
        _ => Err(Refusal::entry(name, "not a device number")),
    }
}

fn metadata(entry: &mut tar::Entry<'_, impl Read>, name: &[u8]) -> Result<Metadata, Refusal> {
    let refuse = |reason: &str| Refusal::entry(name, reason);
    let header = entry.header();
    // (uid_t)-1 means "leave it" to chown.
    let id = |id: std::io::Result<u64>| {
        let id = id.ok().and_then(|id| u32::try_from(id).ok()).filter(|id| *id != u32::MAX);
        id.ok_or_else(|| refuse("not an owner"))
    };
    let mut metadata = Metadata {
        uid: id(header.uid())?,
        gid: id(header.gid())?,
        mode: header.mode().map_err(|_| refuse("not a mode"))? & 0o7777,
        seconds: header.mtime().ok().and_then(|time| i64::try_from(time).ok()).unwrap_or(0),
        ..Metadata::default()
    };
    let extensions = entry.pax_extensions().map_err(|error| refuse(&error.to_string()))?;
    for extension in extensions.into_iter().flatten() {
        let extension = extension.map_err(|error| refuse(&error.to_string()))?;
        let key = extension.key_bytes();
        if key == b"mtime" {
            (metadata.seconds, metadata.nanoseconds) =
                time(extension.value_bytes()).ok_or_else(|| refuse("not a time"))?;
        } else if key.starts_with(b"GNU.sparse.") && Guard::NoSparse.stands() {
            // Their data would be taken for the file's contents.
            return Err(refuse("sparse files in pax format are not supported"));
        } else if let Some(attribute) = key.strip_prefix(b"SCHILY.xattr.") {
            let ours = attribute == b"security.capability"
                || (attribute.starts_with(b"user.") && !attribute.starts_with(b"user.overlay."));
            if (!ours && Guard::ImageAttributes.stands()) || attribute.len() > NAME_LIMIT {
                metadata.skipped += 1;
            } else if extension.value_bytes().len() > ATTRIBUTE_LIMIT {
                return Err(refuse("an extended attribute is too long"));
            } else {
                let value = extension.value_bytes().to_vec();
                metadata.attributes.push((OsStr::from_bytes(attribute).to_owned(), value));
            }
        }
    }
    Ok(metadata)
}

/// A pax time: seconds with an optional sign and fraction.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    // -1.25 is three quarters of a second after -2.
    match whole.starts_with('-') && nanoseconds > 0 {
        true => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
        false => Some((seconds, nanoseconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lie_below_the_root_or_are_refused() {
        let at = |name: &str| place(name.as_bytes()).map(|place| place.path()).map_err(|_| ());
        assert_eq!(at("./a//b/./c/"), Ok("a/b/c".into()));
        assert_eq!(at("/etc/passwd"), Ok("etc/passwd".into()));
        assert_eq!(at("./"), Ok("".into()));
        for bad in ["..", "a/../b", "../a", "/..", &"x".repeat(256), &"x/".repeat(2100)] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn whiteouts_of_no_name_are_refused() {
        let action = |name: &str| {
            let place = place(name.as_bytes()).expect("place");
            let file = place.name.clone().expect("name");
            whiteout(&place, &file, name.as_bytes()).map_err(|_| ())
        };
        let hidden = |folder: &str, name: &str| Place { folder: folder.into(), name: Some(name.into()) };
        assert_eq!(action("a/.wh.b"), Ok(Action::Whiteout(hidden("a", "b"))));
        assert_eq!(action("a/b/.wh..wh..opq"), Ok(Action::Opaque(hidden("a", "b"))));
        assert_eq!(action(".wh..wh..opq"), Ok(Action::Opaque(Place { folder: "".into(), name: None })));
        assert_eq!(action("a/.wh..wh.plnk"), Ok(Action::Skip));
        for bad in ["a/.wh.", "a/.wh..", "a/.wh..."] {
            assert_eq!(action(bad), Err(()), "{bad}");
        }
    }

    #[test]
    fn pax_times_have_signs_and_fractions() {
        assert_eq!(time(b"12"), Some((12, 0)));
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"12.1234567891"), Some((12, 123_456_789)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"-0.25"), Some((-1, 750_000_000)));
        assert_eq!(time(b"x"), None);
        assert_eq!(time(b"1.x"), None);
    }
}
