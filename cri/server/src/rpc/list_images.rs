//! ListImages.

use std::sync::Arc;

use berth_cri_proto::v1::{ListImagesRequest, ListImagesResponse};
use tonic::Status;

use crate::images::describe;
use crate::runtime::Runtime;

#[expect(clippy::unused_async, reason = "all calls have one form")]
pub(crate) async fn call(runtime: &Arc<Runtime>, request: ListImagesRequest) -> Result<ListImagesResponse, Status> {
    let wanted =
        request.filter.and_then(|filter| filter.image).map(|image| image.image).filter(|name| !name.is_empty());
    let images = match wanted {
        Some(name) => runtime.images.find(&name).iter().map(describe).collect(),
        None => runtime.images.list().iter().map(describe).collect(),
    };
    Ok(ListImagesResponse { images })
}
