//! A layer that is being made, and the rename that makes it part of the store.

use std::collections::hash_map::Entry;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use berth_effect::record::TEMPORARY_PREFIX;

use super::index::LayerEntry;
use super::record::{LayerRecord, encode};
use super::{Store, layers_dir};
use crate::error::StoreError;

/// A folder in which a layer is made. Dropped without [`Stage::commit`], it is removed.
#[derive(Debug)]
pub(crate) struct Stage {
    number: u64,
    path: Option<PathBuf>,
}

impl Stage {
    /// Makes an empty folder for a layer.
    pub(crate) fn new(store: &Store) -> Result<Self, StoreError> {
        let number = {
            let mut index = store.index();
            index.next_layer += 1;
            index.next_layer - 1
        };
        let path = layers_dir(store.root()).join(format!("{TEMPORARY_PREFIX}{number}"));
        // 0755 is the mode of a root folder that its archive does not mention.
        let made = berth_effect::run("layer-stage", || {
            fs::create_dir(&path)?;
            fs::create_dir(path.join("diff"))
        });
        made.map_err(StoreError::io("create", &path))?;
        Ok(Self { number, path: Some(path) })
    }

    /// Where the layer's tree is made.
    pub(crate) fn diff(&self) -> PathBuf {
        self.path.as_deref().unwrap_or(Path::new("")).join("diff")
    }

    /// Flushes the layer once and makes it part of the store. A layer of the same key that came first wins.
    pub(crate) fn commit(mut self, store: &Store, record: LayerRecord) -> Result<(), StoreError> {
        let Some(path) = self.path.take() else { return Ok(()) };
        let dir = layers_dir(store.root());
        let target = dir.join(self.number.to_string());
        let write = || -> io::Result<()> {
            fs::write(path.join("layer.json"), encode(&record)?)?;
            // One flush of the file system instead of one per file. It covers the record as well; only the rename
            // needs the folder's own.
            rustix::fs::syncfs(File::open(&path)?)?;
            berth_effect::run("layer-commit", || fs::rename(&path, &target))?;
            File::open(&dir)?.sync_all()
        };
        if let Err(error) = write() {
            self.path = Some(path);
            return Err(StoreError::io("commit", &target)(error));
        }
        let first = match store.index().layers.entry(record.key.clone()) {
            Entry::Vacant(slot) => {
                slot.insert(LayerEntry { number: self.number, record });
                true
            }
            Entry::Occupied(_) => false,
        };
        if first { Ok(()) } else { super::open::remove_tree(&target) }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(path) = self.path.take()
            && let Err(error) = berth_effect::run("layer-unstage", || fs::remove_dir_all(&path))
        {
            tracing::warn!(path = %path.display(), %error, "half-made layer left for the next start");
        }
    }
}
