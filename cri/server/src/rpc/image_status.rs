//! ImageStatus: no image in the answer where there is none.

use std::collections::HashMap;
use std::sync::Arc;

use berth_cri_proto::v1::{ImageStatusRequest, ImageStatusResponse};
use tonic::Status;

use super::required;
use crate::images::describe;
use crate::runtime::Runtime;

#[expect(clippy::unused_async, reason = "all calls have one form")]
pub(crate) async fn call(runtime: &Arc<Runtime>, request: ImageStatusRequest) -> Result<ImageStatusResponse, Status> {
    let name = required(request.image, "image")?.image;
    let image = runtime.images.find(&name);
    let mut info = HashMap::new();
    if request.verbose
        && let Some(image) = &image
    {
        let spec = serde_json::json!({ "imageSpec": *image.config });
        info.insert("info".to_owned(), spec.to_string());
    }
    Ok(ImageStatusResponse { image: image.as_ref().map(describe), info })
}
