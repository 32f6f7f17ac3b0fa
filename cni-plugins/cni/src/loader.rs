//! Which network configuration is in force: containerd's rule over a folder.
//!
//! Files ending in `.conflist`, `.conf` or `.json` are looked at in the order of their names, and the first valid one is
//! the network. Writers make a file of another name (`x.conflist.temp`) and rename it. Plugins in `FOLDER/NETWORK/*.conf`
//! are appended, unless the list says `loadOnlyInlinedPlugins`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::{ConfError, NetworkList};

/// Larger files are refused: a network configuration has a few kilobytes.
const LARGEST_FILE: u64 = 1 << 20;

/// Reads a folder of network configurations, and reads it again only when it changed.
#[derive(Debug)]
pub struct Loader {
    conf_dir: PathBuf,
    last: Mutex<Option<Loaded>>,
}

#[derive(Debug)]
struct Loaded {
    looked_like: Vec<Stamp>,
    list: Arc<NetworkList>,
}

/// What tells one state of a file from another, without reading it.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("network configuration folder {} can't be read: {source}", dir.display())]
    Folder { dir: PathBuf, source: io::Error },
    #[error("no network configuration in {}", .0.display())]
    Empty(PathBuf),
    #[error("no valid network configuration: {}", files(.0))]
    Invalid(Vec<(PathBuf, ConfError)>),
}

impl Loader {
    pub fn new(conf_dir: impl Into<PathBuf>) -> Self {
        Self { conf_dir: conf_dir.into(), last: Mutex::new(None) }
    }

    /// The folder that is read.
    pub fn conf_dir(&self) -> &Path {
        &self.conf_dir
    }

    /// The network in force now. Costs a few stat calls while nothing changes.
    ///
    /// # Errors
    /// Says what is missing, or what is wrong with each file.
    pub fn load(&self) -> Result<Arc<NetworkList>, LoadError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = |source| LoadError::Folder { dir: self.conf_dir.clone(), source };
        let looks_like = stamps(&self.conf_dir).map_err(folder)?;
        if let Some(loaded) = &*last
            && loaded.looked_like == looks_like
        {
            return Ok(Arc::clone(&loaded.list));
        }
        *last = None;
        let mut invalid: Vec<(PathBuf, ConfError)> = Vec::new();
        for stamp in looks_like.iter().filter(|stamp| stamp.path.parent() == Some(&*self.conf_dir)) {
            match read_network(&self.conf_dir, &stamp.path) {
                Ok(list) => {
                    for (path, error) in &invalid {
                        tracing::warn!("network configuration {} is skipped: {error}", path.display());
                    }
                    let list = Arc::new(list);
                    *last = Some(Loaded { looked_like: looks_like, list: Arc::clone(&list) });
                    return Ok(list);
                }
                Err(error) => invalid.push((stamp.path.clone(), error)),
            }
        }
        if invalid.is_empty() { Err(LoadError::Empty(self.conf_dir.clone())) } else { Err(LoadError::Invalid(invalid)) }
    }
}

/// Every candidate of the folder and of its folders of drop-ins, by name. A folder that is not there is empty.
fn stamps(dir: &Path) -> io::Result<Vec<Stamp>> {
    let mut stamps = Vec::new();
    let mut folders = Vec::new();
    for path in entries(dir)? {
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => folders.push(path),
            Ok(metadata) if has_extension(&path, &["conflist", "conf", "json"]) => stamps.push(stamp(path, &metadata)),
            // A file may vanish between the listing and the look.
            Ok(_) | Err(_) => {}
        }
    }
    for folder in folders {
        for path in entries(&folder)?.into_iter().filter(|path| has_extension(path, &["conf"])) {
            if let Ok(metadata) = fs::metadata(&path) {
                stamps.push(stamp(path, &metadata));
            }
        }
    }
    Ok(stamps)
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let listing = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing?,
    };
    let mut paths = listing.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().and_then(|extension| extension.to_str()).is_some_and(|extension| extensions.contains(&extension))
}

fn stamp(path: PathBuf, metadata: &fs::Metadata) -> Stamp {
    Stamp {
        path,
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    }
}

fn read_network(dir: &Path, path: &Path) -> Result<NetworkList, ConfError> {
    let text = read_bounded(path)?;
    if !has_extension(path, &["conflist"]) {
        return NetworkList::parse_single(&text);
    }
    let list = NetworkList::parse(&text)?;
    if !list.takes_drop_ins() {
        return Ok(list);
    }
    let mut drop_ins: Vec<Value> = Vec::new();
    for path in entries(&dir.join(&list.name)).map_err(ConfError::Read)? {
        if has_extension(&path, &["conf"]) {
            drop_ins.push(serde_json::from_slice(&read_bounded(&path)?)?);
        }
    }
    if drop_ins.is_empty() { Ok(list) } else { list.with_drop_ins(drop_ins) }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, ConfError> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(ConfError::Read)?;
    file.take(LARGEST_FILE + 1).read_to_end(&mut text).map_err(ConfError::Read)?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(ConfError::Read(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB")));
    }
    Ok(text)
}

fn files(invalid: &[(PathBuf, ConfError)]) -> String {
    invalid.iter().map(|(path, error)| format!("{}: {error}", path.display())).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflist(name: &str) -> String {
        format!(r#"{{"cniVersion": "1.0.0", "name": "{name}", "plugins": [{{"type": "bridge"}}]}}"#)
    }

    #[test]
    fn the_first_valid_file_by_name_is_the_network() {
        let dir = tempfile::tempdir().expect("a folder");
        let loader = Loader::new(dir.path());
        assert!(matches!(loader.load(), Err(LoadError::Empty(_))));

        fs::write(dir.path().join("00-new.conflist.temp"), conflist("half-written")).expect("write");
        fs::write(dir.path().join("20-b.conf"), r#"{"name": "single", "type": "ptp"}"#).expect("write");
        assert_eq!(loader.load().expect("valid").name, "single");

        fs::write(dir.path().join("10-a.conflist"), "{").expect("write");
        assert_eq!(loader.load().expect("the broken one is skipped").name, "single");

        fs::write(dir.path().join("10-a.conflist"), conflist("first")).expect("write");
        let first = loader.load().expect("valid");
        assert_eq!(first.name, "first");
        assert!(Arc::ptr_eq(&first, &loader.load().expect("unchanged")), "an unchanged folder is not read again");

        fs::remove_file(dir.path().join("10-a.conflist")).expect("remove");
        fs::write(dir.path().join("20-b.conf"), r#"{"type": "ptp"}"#).expect("write");
        let error = loader.load().expect_err("none is valid").to_string();
        assert!(error.contains("20-b.conf: field \"name\" is missing"), "{error}");
    }

    #[test]
    fn drop_ins_are_appended_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let loader = Loader::new(dir.path());
        fs::write(dir.path().join("10.conflist"), conflist("pods")).expect("write");
        assert_eq!(loader.load().expect("valid").plugins.len(), 1);
        fs::create_dir(dir.path().join("pods")).expect("folder");
        fs::write(dir.path().join("pods/10.conf"), r#"{"type": "tuning"}"#).expect("write");
        let list = loader.load().expect("valid");
        let kinds: Vec<_> = list.plugins.iter().map(|plugin| plugin.kind.as_str()).collect();
        assert_eq!(kinds, ["bridge", "tuning"]);
        assert!(!NetworkList::parse(&list.bytes).expect("from the cache").takes_drop_ins());
    }

    #[test]
    fn a_missing_folder_is_an_empty_one() {
        assert!(matches!(Loader::new("/nonexistent/berth").load(), Err(LoadError::Empty(_))));
    }
}
