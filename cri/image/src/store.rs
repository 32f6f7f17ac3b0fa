//! The image store: what is on disk, what of it is used, and the calls that change it.
//!
//! [`Index`] is the picture in memory; every change of it is first made on disk. One process owns a store at a time
//! (the CRI service holds the lock); calls other than pull and import block and belong on a blocking thread.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oci_spec::image::ImageConfiguration;
use tokio::sync::Semaphore;

use crate::error::StoreError;
use crate::reference::Reference;
use crate::unpack;

mod index;
mod inflight;
mod open;
mod record;
mod remove;
mod stage;

pub(crate) use index::{ImageEntry, Index, Lease as LeaseEntry};
pub(crate) use inflight::Inflight;
pub(crate) use record::{ImageRecord, LayerKey, LayerRecord, LeaseRecord, SnapshotRecord, VERSION, encode};
pub(crate) use stage::Stage;

/// How a store works; the defaults suit a node.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program that applies layers, and its arguments.
    pub unpack: unpack::Program,
    /// Bounds of one unpacked layer.
    pub limits: unpack::Limits,
    /// Layers that are downloaded and applied at the same time, over all pulls.
    pub parallel_layers: usize,
    /// A transfer that brings no byte for this long is given up (and tried again).
    pub stall: Duration,
    /// How often one request is tried.
    pub attempts: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            unpack: unpack::Program::default(),
            limits: unpack::Limits::default(),
            parallel_layers: 3,
            stall: Duration::from_secs(60),
            attempts: 5,
        }
    }
}

/// An image as CRI shows it.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of its configuration, `sha256:…`.
    pub id: String,
    /// Full names with a tag; empty when it was pulled by digest only.
    pub repo_tags: Vec<String>,
    /// Full names with the digest of the manifest or index that was asked for.
    pub repo_digests: Vec<String>,
    /// Unpacked size in bytes, shared layers included; never 0.
    pub size: u64,
    /// Not to be removed by garbage collection.
    pub pinned: bool,
    /// The configuration.
    pub config: Arc<ImageConfiguration>,
    pub(crate) layers: Vec<LayerKey>,
}

/// What a part of the store takes up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk, in blocks of the file system.
    pub bytes: u64,
    /// Files, folders, links and devices.
    pub inodes: u64,
}

/// A store in a folder. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    pub(crate) options: Options,
    pub(crate) downloads: Arc<Semaphore>,
    /// By manifest digest: pulls of one image.
    pub(crate) pulls: Inflight,
    /// By DiffID: downloads of one layer.
    pub(crate) layers: Inflight,
    pub(crate) users: crate::users::Cache,
    index: Mutex<Index>,
}

impl Store {
    /// Opens the store under `root` (made when missing): removes what a crash left half-done, sets aside what can't be
    /// understood, frees layers that nothing uses.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the folders can't be made or listed. A single bad record is no error.
    pub fn open(root: &Path, options: Options) -> Result<Self, StoreError> {
        let index = open::open(root)?;
        let inner = Inner {
            root: root.to_path_buf(),
            downloads: Arc::new(Semaphore::new(options.parallel_layers.max(1))),
            options,
            pulls: Inflight::default(),
            layers: Inflight::default(),
            users: crate::users::Cache::default(),
            index: Mutex::new(index),
        };
        let store = Self { inner: Arc::new(inner) };
        store.sweep()?;
        Ok(store)
    }

    /// All images, by id.
    pub fn list(&self) -> Vec<Image> {
        let index = self.index();
        index.images.values().map(|entry| entry.image(&index)).collect()
    }

    /// The image that a reference, an id (`sha256:…` or its hex) or a unique prefix of an id names.
    pub fn find(&self, name: &str) -> Option<Image> {
        let index = self.index();
        let id = index.resolve(name, Reference::parse(name).ok().as_ref())?;
        index.images.get(&id).map(|entry| entry.image(&index))
    }

    /// What images and layers take up, without walking them: as counted when they were unpacked.
    pub fn fs_usage(&self) -> Usage {
        self.index().usage()
    }

    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        // The index is only replaced by whole values after the disk was changed: a panic elsewhere leaves it sound.
        self.inner.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.inner.root
    }

    /// The unpacked tree of a layer.
    pub(crate) fn layer_path(&self, number: u64) -> PathBuf {
        layers_dir(&self.inner.root).join(number.to_string()).join("diff")
    }
}

pub(crate) fn images_dir(root: &Path) -> PathBuf {
    root.join("images")
}

pub(crate) fn layers_dir(root: &Path) -> PathBuf {
    root.join("layers")
}

pub(crate) fn leases_dir(root: &Path) -> PathBuf {
    root.join("leases")
}

pub(crate) fn containers_dir(root: &Path) -> PathBuf {
    root.join("containers")
}
