//! RemoveImage: with all its names. An image that does not exist is removed.

use std::sync::Arc;

use berth_cri_proto::v1::{RemoveImageRequest, RemoveImageResponse};
use tonic::Status;

use super::required;
use crate::images::store_status;
use crate::runtime::Runtime;
use crate::tasks::blocking;

pub(crate) async fn call(runtime: &Arc<Runtime>, request: RemoveImageRequest) -> Result<RemoveImageResponse, Status> {
    let name = required(request.image, "image")?.image;
    let images = runtime.images.clone();
    blocking(move || images.remove(&name)).await?.map_err(|error| store_status(&error))?;
    Ok(RemoveImageResponse {})
}
