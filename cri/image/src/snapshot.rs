//! The folders of a container's root file system: a writable one of its own over the layers of its image.
//!
//! Nothing is mounted here. `containers/ID/snapshot.json` is the container's hold on its layers: it is written before
//! the folders are handed out, and as long as it is there the layers outlive their image.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use berth_effect::record;

use crate::error::StoreError;
use crate::store::{Image, LayerKey, SnapshotRecord, Store, Usage, containers_dir};

/// What an overlay of one container is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The container's id.
    pub container: String,
    /// The image's id.
    pub image: String,
    /// Read-only trees, top first, as overlayfs wants them. Empty for an image without layers.
    pub lower: Vec<PathBuf>,
    /// The read-only trees of each image that the container mounts as a volume, top first.
    pub volumes: Vec<Vec<PathBuf>>,
    /// The writable tree.
    pub upper: PathBuf,
    /// overlayfs' work folder.
    pub work: PathBuf,
}

impl Store {
    /// Makes the folders for a container of `image`; `containers/ID` may be there already. No flush: after a power cut
    /// no container runs that would need them.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the image was removed meanwhile and its layers with it.
    pub fn snapshot(&self, container: &str, image: &Image) -> Result<Snapshot, StoreError> {
        self.snapshot_with(container, image, &[])
    }

    /// As [`Store::snapshot`], for a container that mounts the images `volumes` too: their layers are held like its own.
    ///
    /// # Errors
    /// As [`Store::snapshot`].
    pub fn snapshot_with(&self, container: &str, image: &Image, volumes: &[Image]) -> Result<Snapshot, StoreError> {
        let dir = self.container_dir(container)?;
        let record = SnapshotRecord {
            version: crate::store::VERSION,
            image: image.id.clone(),
            layers: image.layers.clone(),
            volumes: volumes.iter().map(|volume| volume.layers.clone()).collect(),
        };
        {
            let mut index = self.index();
            if let Some(key) = record.held().find(|key| !index.layers.contains_key(key)) {
                return Err(StoreError::Missing { what: format!("{key} of image {}", image.id) });
            }
            // In memory first: from here on no sweep takes the layers.
            index.snapshots.insert(container.to_owned(), record.clone());
        }
        let made = self.make_folders(&dir, &record);
        if made.is_err() {
            self.index().snapshots.remove(container);
        }
        made.map_err(StoreError::io("create", &dir))?;
        self.find_snapshot(container, &record)
    }

    fn make_folders(&self, dir: &Path, record: &SnapshotRecord) -> io::Result<()> {
        berth_effect::run("snapshot-create", || {
            make_dir(dir, 0o711)?;
            record::write_volatile(&dir.join("snapshot.json"), &crate::store::encode(record)?)?;
            // The upper folder's mode is the mode of the container's root folder.
            make_dir(&dir.join("upper"), 0o755)?;
            make_dir(&dir.join("work"), 0o711)
        })
    }

    /// Removes a container's writable tree and its hold on the layers. One that is not there is fine.
    ///
    /// # Errors
    /// [`StoreError::Io`] when something could not be removed; call again.
    pub fn remove_snapshot(&self, container: &str) -> Result<(), StoreError> {
        let dir = self.container_dir(container)?;
        for part in ["upper", "work"] {
            let path = dir.join(part);
            let removed = berth_effect::run("snapshot-remove", || match fs::remove_dir_all(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            });
            removed.map_err(StoreError::io("remove", &path))?;
        }
        // The record goes last: a crash before leaves what is still to be removed findable.
        let path = dir.join("snapshot.json");
        record::remove(&path).map_err(StoreError::io("remove", &path))?;
        // Others keep records in this folder, too; the last one out removes it.
        match fs::remove_dir(&dir) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
                return Err(StoreError::io("remove", &dir)(error));
            }
            _ => {}
        }
        self.index().snapshots.remove(container);
        self.sweep()
    }

    /// All snapshots, by container id.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        let records = self.index().snapshots.clone();
        records.iter().filter_map(|(container, record)| self.find_snapshot(container, record).ok()).collect()
    }

    /// What a container has written, by walking its upper folder.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the folder can't be listed. What vanishes during the walk is not counted.
    pub fn snapshot_usage(&self, container: &str) -> Result<Usage, StoreError> {
        let upper = self.container_dir(container)?.join("upper");
        let mut usage = Usage::default();
        let mut seen = std::collections::HashSet::new();
        let mut folders = vec![upper.clone()];
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if folder != upper && error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(StoreError::io("list", &folder)(error)),
            };
            for entry in entries.flatten() {
                let Ok(data) = entry.metadata() else { continue };
                if data.nlink() > 1 && !data.is_dir() && !seen.insert(data.ino()) {
                    continue;
                }
                usage.bytes += data.blocks() * 512;
                usage.inodes += 1;
                if data.is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        Ok(usage)
    }

    fn find_snapshot(&self, container: &str, record: &SnapshotRecord) -> Result<Snapshot, StoreError> {
        let dir = self.container_dir(container)?;
        let index = self.index();
        let trees = |layers: &[LayerKey]| {
            let mut trees = Vec::with_capacity(layers.len());
            for key in layers.iter().rev() {
                let layer = index.layers.get(key).ok_or_else(|| StoreError::Missing { what: key.to_string() })?;
                let path = self.layer_path(layer.number);
                // An image may list a layer twice; overlayfs refuses that, and the upper one hides the lower one anyway.
                if !trees.contains(&path) {
                    trees.push(path);
                }
            }
            Ok::<_, StoreError>(trees)
        };
        Ok(Snapshot {
            container: container.to_owned(),
            image: record.image.clone(),
            lower: trees(&record.layers)?,
            volumes: record.volumes.iter().map(|layers| trees(layers)).collect::<Result<_, _>>()?,
            upper: dir.join("upper"),
            work: dir.join("work"),
        })
    }

    pub(crate) fn container_dir(&self, container: &str) -> Result<PathBuf, StoreError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if container.is_empty() || container.len() > 128 || container.starts_with('.') || !container.chars().all(plain)
        {
            return Err(StoreError::ContainerId { id: container.to_owned() });
        }
        Ok(containers_dir(self.root()).join(container))
    }
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}
