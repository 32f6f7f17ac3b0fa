//! StreamImages: ListImages in parts.

use std::sync::Arc;

use berth_cri_proto::v1::{ListImagesRequest, StreamImagesRequest, StreamImagesResponse};
use futures_util::stream::BoxStream;
use tonic::Status;

use super::{list_images, parts};
use crate::runtime::Runtime;

pub(crate) fn call(
    runtime: &Arc<Runtime>,
    request: StreamImagesRequest,
) -> Result<BoxStream<'static, Result<StreamImagesResponse, Status>>, Status> {
    let list = move |runtime: Arc<Runtime>| async move {
        let list = ListImagesRequest { filter: request.filter };
        Ok(list_images::call(&runtime, list).await?.images)
    };
    Ok(parts::parts(runtime, list, |images| StreamImagesResponse { images }))
}
