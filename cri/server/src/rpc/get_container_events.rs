//! GetContainerEvents: what happens, as it happens.

use std::sync::Arc;

use berth_cri_proto::v1::{ContainerEventResponse, GetEventsRequest};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio_stream::wrappers::BroadcastStream;
use tonic::Status;

use crate::runtime::Runtime;

pub(crate) fn call(
    runtime: &Arc<Runtime>,
    _: GetEventsRequest,
) -> Result<BoxStream<'static, Result<ContainerEventResponse, Status>>, Status> {
    // Who reads too slowly loses the oldest; the kubelet lists everything once in a while for that reason.
    let events = BroadcastStream::new(runtime.events.subscribe());
    Ok(events.filter_map(async |event| event.ok().map(Ok)).boxed())
}
