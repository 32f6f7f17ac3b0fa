//! What the child tells its parent.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// How much of an answer is read.
pub(super) const REPORT_LIMIT: u64 = 32 << 20;
/// How many folders an answer may name.
pub(super) const FOLDERS_LIMIT: usize = 65_536;

/// What a layer turned out to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Files, folders, links and devices made.
    pub inodes: u64,
    /// Bytes they take on disk, in blocks of 4 KiB.
    pub bytes: u64,
    /// Folders that hide what lies below them, to be marked by the parent.
    pub opaque: Vec<Name>,
    /// Folders that the archive has no entry for: owner, mode and times come from the layers below.
    pub implied: Vec<Name>,
    /// Extended attributes that are not applied (`trusted.`, security labels, or the file system has none).
    pub skipped_attributes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Done(Report),
    /// The archive is one that we refuse.
    Refused {
        reason: String,
    },
    /// Something of ours failed.
    Failed {
        reason: String,
        disk_full: bool,
    },
}

/// A path below the layer's root. File names are bytes, JSON is text: each byte is written as the character of that
/// number, which loses nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Name(String);

impl Name {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.as_os_str().as_bytes().iter().map(|byte| char::from(*byte)).collect())
    }

    /// The path; `None` for what a child of ours can't have written.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        let bytes: Option<Vec<u8>> = self.0.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
        bytes.filter(|bytes| !bytes.contains(&0)).map(|bytes| PathBuf::from(OsString::from_vec(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_bytes_come_back() {
        let path = PathBuf::from(OsString::from_vec(vec![b'a', b'/', 0xff, 0xc3, 0xa4, b'"', b'\n']));
        let text = serde_json::to_string(&Name::new(&path)).expect("encode");
        let name: Name = serde_json::from_str(&text).expect("decode");
        assert_eq!(name.path(), Some(path));
        assert_eq!(Name("\u{20ac}".into()).path(), None);
    }
}
