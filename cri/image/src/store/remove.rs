//! Removal of images, and of layers that nothing uses any more.

use std::fs;
use std::time::SystemTime;

use berth_effect::record;

use super::open::remove_tree;
use super::{Store, images_dir, layers_dir, leases_dir};
use crate::error::StoreError;
use crate::reference::Reference;

impl Store {
    /// Removes the image that `name` means (see [`Store::find`]) with all its names. One that is not there is fine.
    /// Its layers go with it, unless another image, a snapshot or a pull uses them.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the image is then still there, or gone with some of its layers left for the next removal.
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        let reference = Reference::parse(name).ok();
        {
            // Under the lock, so that a pull that has just found the image does not lose it while it adds a name.
            let mut index = self.index();
            let Some(id) = index.resolve(name, reference.as_ref()) else { return Ok(()) };
            let hex = id.trim_start_matches("sha256:");
            let path = images_dir(self.root()).join(format!("{hex}.json"));
            record::remove(&path).map_err(StoreError::io("remove", &path))?;
            index.images.remove(&id);
            self.inner.users.forget(&id);
        }
        self.sweep()
    }

    /// Frees the layers that nothing uses.
    pub(crate) fn sweep(&self) -> Result<(), StoreError> {
        let (leases, unused) = {
            let mut index = self.index();
            (index.expire_leases(SystemTime::now()), index.take_unused())
        };
        for name in leases {
            let path = leases_dir(self.root()).join(format!("{name}.json"));
            record::remove(&path).map_err(StoreError::io("remove", &path))?;
        }
        for layer in unused {
            let dir = layers_dir(self.root());
            let path = dir.join(layer.number.to_string());
            let trash = dir.join(format!("{}{}", record::TEMPORARY_PREFIX, layer.number));
            // Out of the way in one step: a crash in the middle must not leave half a layer under its name.
            berth_effect::run("layer-retire", || fs::rename(&path, &trash)).map_err(StoreError::io("retire", &path))?;
            remove_tree(&trash)?;
        }
        Ok(())
    }
}
