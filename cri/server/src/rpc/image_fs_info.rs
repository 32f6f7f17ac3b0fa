//! ImageFsInfo: what images and containers take up on disk.
//!
//! Nothing is walked for images: their layers were counted when they were unpacked. Writable layers are measured as for
//! statistics, at most every ten seconds each, and beside this call.

use std::sync::Arc;

use berth_cri_proto::v1 as cri;
use tonic::Status;

use crate::places::text;
use crate::runtime::Runtime;
use crate::stats::number;
use crate::tasks::blocking;

pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    _: cri::ImageFsInfoRequest,
) -> Result<cri::ImageFsInfoResponse, Status> {
    let work = Arc::clone(runtime);
    let (at, bytes, inodes) = blocking(move || {
        let containers = work.containers();
        containers.iter().for_each(|container| container.measure(&work));
        // One that can't be walked is being made or removed, or is so large that nobody has seen its end yet.
        let layers = containers.iter().filter_map(|container| container.layer(&work));
        layers.fold((berth_sys::process::now(), 0, 0), |(at, bytes, inodes), layer| {
            (at.min(layer.at), bytes + layer.usage.bytes, inodes + layer.usage.inodes)
        })
    })
    .await?;
    let images = runtime.images.fs_usage();
    Ok(cri::ImageFsInfoResponse {
        image_filesystems: vec![usage(
            berth_sys::process::now(),
            text(&runtime.places.root),
            images.bytes,
            images.inodes,
        )],
        container_filesystems: vec![usage(at, text(&runtime.places.containers()), bytes, inodes)],
    })
}

fn usage(timestamp: i64, mountpoint: String, bytes: u64, inodes: u64) -> cri::FilesystemUsage {
    cri::FilesystemUsage {
        timestamp,
        fs_id: Some(cri::FilesystemIdentifier { mountpoint }),
        used_bytes: number(bytes),
        inodes_used: number(inodes),
    }
}
