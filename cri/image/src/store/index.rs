//! The picture of the store in memory, and what follows from it. No file is touched here.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use oci_spec::image::ImageConfiguration;

use super::record::{ImageRecord, LayerKey, LayerRecord, SnapshotRecord};
use super::{Image, Usage};
use crate::digest::Digest;
use crate::reference::{Reference, Wanted};

/// How long the layers of a pull that failed or died wait for it to be tried again.
const LEASE_KEEP: Duration = Duration::from_secs(3600);

/// What a record file takes up: one block and one inode.
const RECORD_BYTES: u64 = 4096;

#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) images: BTreeMap<String, ImageEntry>,
    pub(crate) layers: HashMap<LayerKey, LayerEntry>,
    pub(crate) snapshots: BTreeMap<String, SnapshotRecord>,
    /// By manifest digest (hex).
    pub(crate) leases: HashMap<String, Lease>,
    /// The next layer folder's number.
    pub(crate) next_layer: u64,
    /// The next tag's stamp.
    pub(crate) next_stamp: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct ImageEntry {
    pub(crate) record: ImageRecord,
    pub(crate) config: Arc<ImageConfiguration>,
}

#[derive(Debug, Clone)]
pub(crate) struct LayerEntry {
    pub(crate) number: u64,
    pub(crate) record: LayerRecord,
}

#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub(crate) layers: BTreeSet<Digest>,
    /// Pulls at work under it.
    pub(crate) active: usize,
    pub(crate) since: SystemTime,
}

impl ImageEntry {
    pub(crate) fn image(&self, index: &Index) -> Image {
        let layers: HashSet<_> = self.record.layers.iter().collect();
        let unpacked: u64 = layers.iter().filter_map(|key| index.layers.get(*key)).map(|l| l.record.bytes).sum();
        Image {
            id: self.record.id.to_string(),
            repo_tags: self.record.tags.keys().cloned().collect(),
            repo_digests: self.record.digests.iter().cloned().collect(),
            size: unpacked + self.record.config.len() as u64,
            pinned: self.record.pinned,
            config: Arc::clone(&self.config),
            layers: self.record.layers.clone(),
        }
    }
}

impl Index {
    /// The id of the image that `name` means; `reference` is `name` parsed, where it parses.
    pub(crate) fn resolve(&self, name: &str, reference: Option<&Reference>) -> Option<String> {
        let full = if name.starts_with("sha256:") { name.to_owned() } else { format!("sha256:{name}") };
        if self.images.contains_key(&full) {
            return Some(full);
        }
        if let Some(reference) = reference {
            let text = reference.to_string();
            let named = self.images.iter().find(|(_, entry)| match reference.wanted {
                Wanted::Tag(_) => entry.record.tags.contains_key(&text),
                Wanted::Digest(_) => entry.record.digests.contains(&text),
            });
            if let Some((id, _)) = named {
                return Some(id.clone());
            }
        }
        // crictl shows and accepts shortened ids.
        if full.len() < "sha256:".len() + 4 {
            return None;
        }
        let mut matching = self.images.range(full.clone()..).take_while(|(id, _)| id.starts_with(&full));
        match (matching.next(), matching.next()) {
            (Some((id, _)), None) => Some(id.clone()),
            _ => None,
        }
    }

    /// The key under which a layer is there already, for an image in which it ends the chain `chain`.
    pub(crate) fn present(&self, diff_id: &Digest, chain: &Digest) -> Option<LayerKey> {
        [LayerKey::Alone(diff_id.clone()), LayerKey::Above(chain.clone())]
            .into_iter()
            .find(|key| self.layers.contains_key(key))
    }

    pub(crate) fn usage(&self) -> Usage {
        let records = (self.images.len() + self.layers.len()) as u64;
        let layers = self.layers.values().fold(Usage::default(), |sum, layer| Usage {
            bytes: sum.bytes + layer.record.bytes,
            inodes: sum.inodes + layer.record.inodes,
        });
        Usage { bytes: layers.bytes + records * RECORD_BYTES, inodes: layers.inodes + records }
    }

    /// Drops leases that nobody came back for, and returns their names.
    pub(crate) fn expire_leases(&mut self, now: SystemTime) -> Vec<String> {
        let keep =
            |lease: &Lease| lease.active > 0 || now.duration_since(lease.since).is_ok_and(|idle| idle < LEASE_KEEP);
        let expired: Vec<_> = self.leases.iter().filter(|(_, l)| !keep(l)).map(|(name, _)| name.clone()).collect();
        for name in &expired {
            self.leases.remove(name);
        }
        expired
    }

    /// Takes out the layers that no image, snapshot or lease uses, and returns them.
    pub(crate) fn take_unused(&mut self) -> Vec<LayerEntry> {
        let mut used: HashSet<&LayerKey> = HashSet::new();
        used.extend(self.images.values().flat_map(|entry| &entry.record.layers));
        used.extend(self.snapshots.values().flat_map(SnapshotRecord::held));
        let leased: HashSet<&Digest> = self.leases.values().flat_map(|lease| &lease.layers).collect();
        let unused: Vec<LayerKey> = self
            .layers
            .iter()
            .filter(|(key, layer)| !used.contains(key) && !leased.contains(&layer.record.diff_id))
            .map(|(key, _)| key.clone())
            .collect();
        unused.iter().filter_map(|key| self.layers.remove(key)).collect()
    }
}
