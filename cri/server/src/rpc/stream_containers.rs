//! StreamContainers: ListContainers in parts.

use std::sync::Arc;

use berth_cri_proto::v1::{ListContainersRequest, StreamContainersRequest, StreamContainersResponse};
use futures_util::stream::BoxStream;
use tonic::Status;

use super::{list_containers, parts};
use crate::runtime::Runtime;

pub(crate) fn call(
    runtime: &Arc<Runtime>,
    request: StreamContainersRequest,
) -> Result<BoxStream<'static, Result<StreamContainersResponse, Status>>, Status> {
    let list = move |runtime: Arc<Runtime>| async move {
        let list = ListContainersRequest { filter: request.filter };
        Ok(list_containers::call(&runtime, list).await?.containers)
    };
    Ok(parts::parts(runtime, list, |containers| StreamContainersResponse { containers }))
}
