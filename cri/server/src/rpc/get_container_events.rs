//! GetContainerEvents: what happens, as it happens.
//!
//! Nobody waits for a listener: it may be 1024 events behind. One that falls further behind has lost some, which it is
//! told by the end of its stream; it then lists everything and listens anew.

use std::sync::Arc;

use berth_cri_proto::v1::{ContainerEventResponse, GetEventsRequest};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tonic::Status;

use crate::runtime::Runtime;

pub(crate) fn call(
    runtime: &Arc<Runtime>,
    _: GetEventsRequest,
) -> Result<BoxStream<'static, Result<ContainerEventResponse, Status>>, Status> {
    Ok(events(runtime.events.subscribe()))
}

fn events<T: Clone + Send + 'static>(receiver: Receiver<T>) -> BoxStream<'static, Result<T, Status>> {
    stream::unfold(Some(receiver), async |receiver| {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Ok(event) => Some((Ok(event), Some(receiver))),
            Err(RecvError::Lagged(lost)) => {
                let text =
                    format!("{lost} events were lost because they were not read; list everything and listen anew");
                Some((Err(Status::data_loss(text)), None))
            }
            Err(RecvError::Closed) => None,
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast;

    use super::*;

    #[tokio::test]
    async fn a_listener_that_lost_events_is_told_and_ended() {
        let (sender, receiver) = broadcast::channel(2);
        let mut listening = events(receiver);
        sender.send(1).expect("a listener");
        assert_eq!(listening.next().await.expect("an event").expect("not lost"), 1);
        for event in 2..=5 {
            sender.send(event).expect("nobody waits for it");
        }
        let lost = listening.next().await.expect("told").expect_err("2 and 3 are lost");
        assert_eq!(lost.code(), tonic::Code::DataLoss);
        assert!(lost.message().starts_with("2 events"), "{lost}");
        assert!(listening.next().await.is_none());
    }
}
