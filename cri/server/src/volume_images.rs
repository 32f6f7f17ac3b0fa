//! Images that a container mounts as volumes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use berth_cri_core::compile;
use berth_cri_core::view::VolumeImage;
use berth_cri_proto::v1 as cri;
use berth_image::{Image, Snapshot};
use tonic::Status;

use crate::places::text;
use crate::runtime::Runtime;

/// The images by the names that the configuration gives them.
pub(crate) fn find(runtime: &Runtime, config: &cri::ContainerConfig) -> Result<Vec<(String, Image)>, Status> {
    let mut found: Vec<(String, Image)> = Vec::new();
    for (name, _) in compile::images(config) {
        if found.iter().any(|(known, _)| known == name) {
            continue;
        }
        let image = runtime.images.find(name).ok_or_else(|| {
            Status::not_found(format!("the volume's image {name:?} is not on this node: pull it first"))
        })?;
        found.push((name.to_owned(), image));
    }
    Ok(found)
}

/// What the core needs to know of them; `snapshot` was made with the same list.
pub(crate) fn views(images: &[(String, Image)], snapshot: &Snapshot) -> BTreeMap<String, VolumeImage> {
    let view = |((name, image), layers): (&(String, Image), &Vec<PathBuf>)| {
        (name.clone(), VolumeImage { id: image.id.clone(), layers: layers.iter().map(|layer| text(layer)).collect() })
    };
    images.iter().zip(&snapshot.volumes).map(view).collect()
}

/// Looks whether each part that is asked for is there, before a container is made that could never start.
pub(crate) fn check(config: &cri::ContainerConfig, images: &BTreeMap<String, VolumeImage>) -> Result<(), Status> {
    for (index, mount) in config.mounts.iter().enumerate() {
        let image = mount.image.as_ref().and_then(|image| images.get(&image.image));
        if let Some(image) = image
            && !mount.image_sub_path.is_empty()
        {
            berth_oci::images::check(&image.layers, &mount.image_sub_path).map_err(|failure| {
                let text = format!("mounts[{index}].image_sub_path: {}; name a path of the image", failure.message);
                Status::invalid_argument(text)
            })?;
        }
    }
    Ok(())
}

/// Which image each name is, for the record.
pub(crate) fn ids(images: &BTreeMap<String, VolumeImage>) -> BTreeMap<String, String> {
    images.iter().map(|(name, image)| (name.clone(), image.id.clone())).collect()
}

/// A configuration's mounts as the status repeats them: with which image each one is (KEP-5365). The configuration itself
/// stays as it came, so that the same request is known again.
pub(crate) fn shown(mounts: &[cri::Mount], ids: &BTreeMap<String, String>) -> Vec<cri::Mount> {
    let mut mounts = mounts.to_vec();
    for image in mounts.iter_mut().filter_map(|mount| mount.image.as_mut()) {
        if let Some(id) = ids.get(&image.image) {
            image.image_ref.clone_from(id);
        }
    }
    mounts
}
