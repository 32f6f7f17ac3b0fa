//! What a pull writes besides layers: its lease before, the image's record after.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use berth_effect::record;

use super::blocking;
use crate::digest::Digest;
use crate::error::{PullError, StoreError};
use crate::store::{self, Image, ImageEntry, ImageRecord, LeaseEntry, LeaseRecord, Store, VERSION, encode};

/// A pull's hold on the layers that it uses. Dropped without [`Lease::done`], the layers wait for another try.
pub(super) struct Lease {
    store: Store,
    name: String,
}

impl Lease {
    /// Records the lease, then counts it.
    pub(super) async fn take(store: &Store, name: &str, layers: BTreeSet<Digest>) -> Result<Self, PullError> {
        let (store, name) = (store.clone(), name.to_owned());
        blocking(move || {
            let path = store::leases_dir(store.root()).join(format!("{name}.json"));
            let lease = LeaseRecord { version: VERSION, layers: layers.clone() };
            // No flush: after a power cut a layer without a lease is only pulled again.
            encode(&lease)
                .and_then(|bytes| record::write_volatile(&path, &bytes))
                .map_err(|error| PullError::from_io("lease", &path, &error))?;
            let mut index = store.index();
            let entry = index.leases.entry(name.clone());
            let entry =
                entry.or_insert_with(|| LeaseEntry { layers: BTreeSet::new(), active: 0, since: SystemTime::now() });
            entry.layers.extend(layers);
            entry.active += 1;
            drop(index);
            Ok(Self { store, name })
        })
        .await
    }

    /// The image is recorded and holds its layers itself.
    pub(super) fn done(self) {
        let mut index = self.store.index();
        if index.leases.get(&self.name).is_some_and(|lease| lease.active == 1) {
            index.leases.remove(&self.name);
            drop(index);
            let path = store::leases_dir(self.store.root()).join(format!("{}.json", self.name));
            if let Err(error) = record::remove(&path) {
                tracing::warn!(path = %path.display(), %error, "lease left for the next start");
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(lease) = self.store.index().leases.get_mut(&self.name) {
            lease.active = lease.active.saturating_sub(1);
            lease.since = SystemTime::now();
        }
    }
}

impl Store {
    /// Records an image, or adds names to the one that is there, and takes its tags from the images that had them.
    pub(super) fn commit_image(&self, mut new: ImageRecord) -> Result<Image, StoreError> {
        let config = serde_json::from_str(&new.config)
            .map_err(|error| StoreError::io("read configuration of", new.id.as_str().as_ref())(error.into()))?;
        // Held over the writes: images are few, and a removal in between would take what is being named.
        let mut index = self.index();
        let id = new.id.to_string();
        let stamp = index.next_stamp;
        index.next_stamp += 1;
        for given in new.tags.values_mut() {
            *given = stamp;
        }
        let mut record = new.clone();
        if let Some(old) = index.images.get(&id) {
            // Pulled again, as "always" does before every container: no flush for what is on disk already.
            let named = new.tags.keys().all(|tag| old.record.tags.contains_key(tag));
            if named && new.digests.is_subset(&old.record.digests) && (old.record.pinned || !new.pinned) {
                return Ok(old.image(&index));
            }
            // The old record's layers may be named in the other way; both ways are the same trees.
            record.tags.extend(
                old.record
                    .tags
                    .iter()
                    .filter(|(tag, _)| !new.tags.contains_key(*tag))
                    .map(|(tag, stamp)| (tag.clone(), *stamp)),
            );
            record.digests.extend(old.record.digests.iter().cloned());
            record.pinned |= old.record.pinned;
        }
        self.write(&record)?;
        index.images.insert(id.clone(), ImageEntry { record, config: Arc::new(config) });
        let losing: Vec<String> = index
            .images
            .iter()
            .filter(|(other, entry)| **other != id && new.tags.keys().any(|tag| entry.record.tags.contains_key(tag)))
            .map(|(other, _)| other.clone())
            .collect();
        for other in losing {
            let Some(entry) = index.images.get(&other) else { continue };
            let mut record = entry.record.clone();
            record.tags.retain(|tag, _| !new.tags.contains_key(tag));
            self.write(&record)?;
            if let Some(entry) = index.images.get_mut(&other) {
                entry.record = record;
            }
        }
        index.images.get(&id).map(|entry| entry.image(&index)).ok_or(StoreError::Missing { what: id })
    }

    fn write(&self, image: &ImageRecord) -> Result<(), StoreError> {
        let path = store::images_dir(self.root()).join(format!("{}.json", image.id.hex()));
        encode(image).and_then(|bytes| record::write_durable(&path, &bytes)).map_err(StoreError::io("write", &path))
    }
}
