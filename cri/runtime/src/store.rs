//! Records of containers: `ROOT/ID/`.
//!
//! | file | what |
//! |---|---|
//! | `state.json` | the [`Record`], written before anything is made and again with every change |
//! | `config.json` | the configuration as it was at create |
//! | `start.sock` | where the container's process waits for its start; gone once it was started |

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use berth_effect::record;
use serde::{Deserialize, Serialize};

use crate::fault::{During, Fault, Outcome};

/// The newest form of a record.
const VERSION: u32 = 1;
const RECORD: &str = "state.json";
const CONFIGURATION: &str = "config.json";
pub(crate) const START: &str = "start.sock";
/// The largest record, and the largest configuration, in bytes.
const MAX_RECORD: u64 = 1 << 20;
pub(crate) const MAX_CONFIGURATION: u64 = 16 << 20;
const MAX_ID: usize = 1024;

/// How far a container has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// Things are being made; whoever was doing it may be gone.
    Creating,
    /// All is made, and the process waits or has been started.
    Created,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    pub(crate) oci_version: String,
    pub(crate) id: String,
    pub(crate) phase: Phase,
    /// The container's first process; 0 until it is born.
    pub(crate) pid: i32,
    /// When it was born, in ticks since boot.
    pub(crate) process_started: u64,
    pub(crate) bundle: String,
    pub(crate) rootfs: String,
    /// RFC 3339.
    pub(crate) created: String,
    /// The user who made it.
    pub(crate) owner: u32,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
    /// In every hierarchy.
    pub(crate) cgroup: String,
    /// systemd's unit, where it made the cgroup; else empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) unit: String,
}

impl Record {
    pub(crate) fn new(id: &str, oci_version: &str, bundle: &str) -> Self {
        Self {
            version: VERSION,
            oci_version: oci_version.to_owned(),
            id: id.to_owned(),
            phase: Phase::Creating,
            pid: 0,
            process_started: 0,
            bundle: bundle.to_owned(),
            rootfs: String::new(),
            created: crate::clock::rfc3339(crate::clock::now()),
            owner: berth_sys::process::effective_user(),
            annotations: BTreeMap::new(),
            cgroup: String::new(),
            unit: String::new(),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Store {
    root: PathBuf,
}

impl Store {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Takes an id: from now on it is nobody else's.
    pub(crate) fn claim(&self, id: &str) -> Outcome<Folder> {
        check_id(id)?;
        let make = |path: &Path, recursive| fs::DirBuilder::new().recursive(recursive).mode(0o700).create(path);
        make(&self.root, true).during(|| format!("make {}", self.root.display()))?;
        let path = self.root.join(id);
        match berth_effect::run("container-claim", || make(&path, false)) {
            Ok(()) => Ok(Folder { path }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(taken(id)),
            // One system call: when it fails, nothing was made.
            Err(error) => Err(error).during(|| format!("make {}", path.display())),
        }
    }

    /// Refuses an id that is taken already, before anything else about its container is looked at; [`Store::claim`] decides.
    pub(crate) fn check_free(&self, id: &str) -> Outcome<()> {
        match self.folder(id)? {
            Some(_) => Err(taken(id)),
            None => Ok(()),
        }
    }

    /// A container that exists.
    pub(crate) fn open(&self, id: &str) -> Outcome<(Folder, Record)> {
        check_id(id)?;
        let folder = Folder { path: self.root.join(id) };
        let missing = || Fault::new(format!("container does not exist: {id}"));
        if !folder.path.is_dir() {
            return Err(missing());
        }
        let record = folder.read()?.ok_or_else(missing)?;
        Ok((folder, record))
    }

    /// The folder of a container, whether it has a record or not.
    pub(crate) fn folder(&self, id: &str) -> Outcome<Option<Folder>> {
        check_id(id)?;
        let path = self.root.join(id);
        Ok(path.is_dir().then_some(Folder { path }))
    }

    pub(crate) fn ids(&self) -> Outcome<Vec<String>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.during(|| format!("read {}", self.root.display()))?,
        };
        let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let mut ids: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        ids.sort();
        Ok(ids)
    }
}

/// A container's folder.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn write(&self, record: &Record) -> Outcome<()> {
        let path = self.path.join(RECORD);
        let bytes = serde_json::to_vec(record).map_err(|error| Fault::new(error.to_string()))?;
        record::write_volatile(&path, &bytes).during(|| format!("write {}", path.display()))
    }

    /// `None` where its maker was killed before it could say anything.
    pub(crate) fn read(&self) -> Outcome<Option<Record>> {
        let path = self.path.join(RECORD);
        let Some(bytes) = record::read(&path, MAX_RECORD).during(|| format!("read {}", path.display()))? else {
            return Ok(None);
        };
        let record: Record = serde_json::from_slice(&bytes)
            .map_err(|error| Fault::new(format!("{} makes no sense: {error}", path.display())))?;
        if record.version != VERSION {
            let version = record.version;
            return Err(Fault::new(format!("{} is of version {version}, and this is for {VERSION}", path.display())));
        }
        Ok(Some(record))
    }

    pub(crate) fn keep_configuration(&self, text: &[u8]) -> Outcome<()> {
        let path = self.path.join(CONFIGURATION);
        record::write_volatile(&path, text).during(|| format!("write {}", path.display()))
    }

    pub(crate) fn configuration(&self) -> Outcome<oci_spec::runtime::Spec> {
        crate::configuration::read(&self.path.join(CONFIGURATION)).map(|(spec, _)| spec)
    }

    /// Forgets the container.
    pub(crate) fn remove(&self) -> Outcome<()> {
        match berth_effect::run("container-forget", || fs::remove_dir_all(&self.path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.during(|| format!("remove {}", self.path.display())),
        }
    }
}

fn taken(id: &str) -> Fault {
    Fault::new(format!("container with id exists: {id}"))
}

/// As runc: letters, digits and `_+-.`, since an id becomes the name of a folder and of a cgroup.
fn check_id(id: &str) -> Outcome<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    if id.is_empty() || id == "." || id == ".." || id.len() > MAX_ID || !id.chars().all(plain) {
        return Err(Fault::new(format!("invalid container ID format: {id:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names() {
        for good in ["a", "A.b_c+d-e", "..."] {
            check_id(good).expect(good);
        }
        for bad in ["", ".", "..", "a/b", "a b", "ä", "a\n"] {
            check_id(bad).expect_err(bad);
        }
    }
}
