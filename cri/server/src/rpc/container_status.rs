//! ContainerStatus. Its verbose part has containerd's keys, which tools read (`crictl inspect`).

use std::collections::HashMap;
use std::sync::Arc;

use berth_cri_proto::v1::{ContainerStatusRequest, ContainerStatusResponse};
use tonic::Status;

use crate::inspect;
use crate::runtime::Runtime;
use crate::tasks::blocking;

pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: ContainerStatusRequest,
) -> Result<ContainerStatusResponse, Status> {
    let container = runtime.container(&request.container_id)?;
    let status = container.status();
    let mut info = HashMap::new();
    if request.verbose {
        let work = Arc::clone(runtime);
        let text = blocking(move || inspect::container(&work, &container).to_string()).await?;
        info.insert("info".to_owned(), text);
    }
    Ok(ContainerStatusResponse { status: Some(status), info })
}
