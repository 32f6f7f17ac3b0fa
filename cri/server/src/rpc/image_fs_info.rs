//! ImageFsInfo: what images and containers take up on disk.

use std::sync::Arc;

use berth_cri_proto::v1 as cri;
use tonic::Status;

use crate::places::text;
use crate::runtime::Runtime;
use crate::tasks::blocking;

pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    _: cri::ImageFsInfoRequest,
) -> Result<cri::ImageFsInfoResponse, Status> {
    let work = Arc::clone(runtime);
    let containers = blocking(move || {
        let usages =
            work.containers().into_iter().filter_map(|container| work.images.snapshot_usage(&container.id).ok());
        usages.fold((0, 0), |(bytes, inodes), usage| (bytes + usage.bytes, inodes + usage.inodes))
    });
    let images = runtime.images.fs_usage();
    let (bytes, inodes) = containers.await?;
    Ok(cri::ImageFsInfoResponse {
        image_filesystems: vec![usage(text(&runtime.places.root), images.bytes, images.inodes)],
        container_filesystems: vec![usage(text(&runtime.places.containers()), bytes, inodes)],
    })
}

fn usage(mountpoint: String, bytes: u64, inodes: u64) -> cri::FilesystemUsage {
    cri::FilesystemUsage {
        timestamp: berth_sys::process::now(),
        fs_id: Some(cri::FilesystemIdentifier { mountpoint }),
        used_bytes: Some(cri::UInt64Value { value: bytes }),
        inodes_used: Some(cri::UInt64Value { value: inodes }),
    }
}
