//! Rebuilding the index from what is on disk, and repairing what a crash left.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_effect::record::{TEMPORARY_PREFIX, read, set_aside};
use berth_guard::Guard;
use oci_spec::image::ImageConfiguration;

use super::index::{ImageEntry, LayerEntry, Lease};
use super::record::{ImageRecord, LayerRecord, LeaseRecord, RECORD_LIMIT, SnapshotRecord, Versioned, decode, encode};
use super::{Index, containers_dir, images_dir, layers_dir, leases_dir};
use crate::error::StoreError;

pub(super) fn open(root: &Path) -> Result<Index, StoreError> {
    for (dir, mode) in [
        // Traversable, so that a container's user can reach its own root file system; nothing else is listable.
        (root.to_path_buf(), 0o711),
        (layers_dir(root), 0o700),
        (images_dir(root), 0o700),
        (leases_dir(root), 0o700),
        (containers_dir(root), 0o711),
    ] {
        let mode = if Guard::PrivateFolders.stands() { mode } else { 0o755 };
        fs::DirBuilder::new().recursive(true).mode(mode).create(&dir).map_err(StoreError::io("create", &dir))?;
    }
    let mut index = Index { next_layer: 1, next_stamp: 1, ..Index::default() };
    layers(&mut index, &layers_dir(root))?;
    leases(&mut index, &leases_dir(root))?;
    images(&mut index, &images_dir(root))?;
    snapshots(&mut index, &containers_dir(root))?;
    Ok(index)
}

fn layers(index: &mut Index, dir: &Path) -> Result<(), StoreError> {
    let mut numbers = Vec::new();
    for (name, path) in entries(dir)? {
        if name.starts_with(TEMPORARY_PREFIX) {
            wait_for_unpacker(&path);
            remove_tree(&path)?;
        } else if let Some(number) = number(&name) {
            index.next_layer = index.next_layer.max(number + 1);
            numbers.push((number, path));
        }
    }
    numbers.sort();
    for (number, path) in numbers {
        let Some(record) = load::<LayerRecord>(&path.join("layer.json"))? else {
            // The rename of a layer follows its record, so this was damaged from outside.
            tracing::error!(layer = %path.display(), "layer without a readable record; set aside");
            set_aside(&path).map_err(StoreError::io("set aside", &path))?;
            continue;
        };
        if index.layers.contains_key(&record.key) {
            remove_tree(&path)?;
            continue;
        }
        index.layers.insert(record.key.clone(), LayerEntry { number, record });
    }
    Ok(())
}

fn leases(index: &mut Index, dir: &Path) -> Result<(), StoreError> {
    for (name, path) in records(dir)? {
        let since = fs::metadata(&path).and_then(|data| data.modified()).map_err(StoreError::io("read", &path))?;
        if let Some(record) = load::<LeaseRecord>(&path)? {
            index.leases.insert(name, Lease { layers: record.layers, active: 0, since });
        }
    }
    Ok(())
}

fn images(index: &mut Index, dir: &Path) -> Result<(), StoreError> {
    for (name, path) in records(dir)? {
        let Some(record) = load::<ImageRecord>(&path)? else { continue };
        let config = match checked(index, &name, &record) {
            Ok(config) => Arc::new(config),
            Err(reason) => {
                tracing::error!(record = %path.display(), reason, "image set aside; pull it again");
                set_aside(&path).map_err(StoreError::io("set aside", &path))?;
                continue;
            }
        };
        index.next_stamp = index.next_stamp.max(record.tags.values().max().map_or(0, |stamp| stamp + 1));
        index.images.insert(record.id.to_string(), ImageEntry { record, config });
    }
    untangle(index, dir)
}

/// What a record needs to be an image: its name, its configuration's digest, all its layers.
fn checked(index: &Index, name: &str, record: &ImageRecord) -> Result<ImageConfiguration, String> {
    if record.id.hex() != name || !record.id.matches(record.config.as_bytes()) {
        return Err("configuration does not match the id".into());
    }
    if let Some(key) = record.layers.iter().find(|key| !index.layers.contains_key(key)) {
        return Err(format!("{key} is missing"));
    }
    serde_json::from_str(&record.config).map_err(|error| format!("configuration: {error}"))
}

/// A crash may leave a tag with the image that had it before, too: the greater stamp keeps it.
fn untangle(index: &mut Index, dir: &Path) -> Result<(), StoreError> {
    let mut best = std::collections::HashMap::new();
    for entry in index.images.values() {
        for (tag, stamp) in &entry.record.tags {
            let greatest = best.entry(tag.clone()).or_insert(*stamp);
            *greatest = (*greatest).max(*stamp);
        }
    }
    for entry in index.images.values_mut() {
        let before = entry.record.tags.len();
        entry.record.tags.retain(|tag, stamp| best.get(tag) == Some(stamp));
        if entry.record.tags.len() != before {
            let path = dir.join(format!("{}.json", entry.record.id.hex()));
            encode(&entry.record)
                .and_then(|bytes| berth_effect::record::write_durable(&path, &bytes))
                .map_err(StoreError::io("write", &path))?;
        }
    }
    Ok(())
}

fn snapshots(index: &mut Index, dir: &Path) -> Result<(), StoreError> {
    for (name, path) in entries(dir)? {
        // A container's folder may hold records of others; only ours are ours to repair.
        match load::<SnapshotRecord>(&path.join("snapshot.json"))? {
            Some(record) => drop(index.snapshots.insert(name, record)),
            None => forget_begun(&path),
        }
    }
    Ok(())
}

/// A container's folder that was made, but in which nothing was recorded yet, goes; one with anything in it stays.
fn forget_begun(dir: &Path) {
    for (name, path) in entries(dir).unwrap_or_default() {
        if name.starts_with(TEMPORARY_PREFIX) {
            let _ = berth_effect::record::remove(&path);
        }
    }
    let _ = fs::remove_dir(dir);
}

/// Reads one record; one that can't be understood is set aside and reported as none.
fn load<R: Versioned>(path: &Path) -> Result<Option<R>, StoreError> {
    let reason = match read(path, RECORD_LIMIT) {
        Ok(None) => return Ok(None),
        Ok(Some(bytes)) => match decode(&bytes) {
            Ok(record) => return Ok(Some(record)),
            Err(reason) => reason,
        },
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => error.to_string(),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    tracing::error!(record = %path.display(), reason, "corrupt record set aside");
    set_aside(path).map_err(StoreError::io("set aside", path))?;
    Ok(None)
}

/// The records of a folder by name without `.json`; half-written ones are removed.
fn records(dir: &Path) -> Result<Vec<(String, PathBuf)>, StoreError> {
    let mut records = Vec::new();
    for (name, path) in entries(dir)? {
        if name.starts_with(TEMPORARY_PREFIX) {
            berth_effect::record::remove(&path).map_err(StoreError::io("remove", &path))?;
        } else if let Some(name) = name.strip_suffix(".json") {
            records.push((name.to_owned(), path));
        }
    }
    Ok(records)
}

fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>, StoreError> {
    let list = || -> io::Result<Vec<(String, PathBuf)>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // Names that are not text are none of ours.
            if let Ok(name) = entry.file_name().into_string() {
                names.push((name, entry.path()));
            }
        }
        names.sort();
        Ok(names)
    };
    list().map_err(StoreError::io("list", dir))
}

/// A layer folder's number: digits without a leading zero.
fn number(name: &str) -> Option<u64> {
    name.parse().ok().filter(|number: &u64| number.to_string() == name)
}

/// An unpacker outlives a killed parent by what is left in its pipe; it holds its folder locked.
fn wait_for_unpacker(stage: &Path) {
    if let Ok(folder) = fs::File::open(stage.join("diff")) {
        // A failure here only means that removing may have to be repeated.
        let _ = rustix::fs::flock(&folder, rustix::fs::FlockOperation::LockExclusive);
    }
}

pub(super) fn remove_tree(path: &Path) -> Result<(), StoreError> {
    let removed = berth_effect::run("tree-remove", || match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    });
    removed.map_err(StoreError::io("remove", path))
}
