//! CheckpointContainer: a running container's state in an archive, for restoring it elsewhere or for looking into it. The
//! container runs on.

use std::path::{Component, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_cri_core::state::ContainerState;
use berth_cri_proto::v1::{CheckpointContainerRequest, CheckpointContainerResponse};
use tonic::Status;

use crate::checkpoint::{self, Failure};
use crate::runtime::Runtime;
use crate::tasks::blocking;

/// Where the caller names no time: what the memory of a large container takes to be written.
const DEFAULT: Duration = Duration::from_secs(600);

pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: CheckpointContainerRequest,
) -> Result<CheckpointContainerResponse, Status> {
    let container = runtime.container(&request.container_id)?;
    let location = location(&request.location)?;
    let patience = match u64::try_from(request.timeout) {
        Ok(0) => DEFAULT,
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => return Err(Status::invalid_argument(format!("timeout: {} is negative", request.timeout))),
    };
    let Some(deadline) = Instant::now().checked_add(patience) else {
        return Err(Status::invalid_argument(format!("timeout: {} s is too long", request.timeout)));
    };
    // Neither removed nor changed meanwhile; whoever stops it ends the checkpoint, too.
    let _operation = runtime.operations.begin(&container.id, "checkpoint").await;
    let ContainerState::Running { pid, .. } = container.state() else {
        return Err(Status::failed_precondition(format!(
            "container {:?} is not running, and only a running container can be checkpointed",
            container.id
        )));
    };
    let (work, checkpointed) = (Arc::clone(runtime), Arc::clone(&container));
    let outcome = blocking(move || checkpoint::write(&work, &checkpointed, pid, &location, deadline)).await?;
    outcome.map_err(|failure| {
        let text = format!("failed to checkpoint container {:?}: {failure}; it runs as before", container.id);
        match failure {
            Failure::NoCriu(_) => Status::unimplemented(text),
            Failure::OldCriu { .. } => Status::failed_precondition(text),
            Failure::Exists(_) => Status::already_exists(text),
            Failure::Late => Status::deadline_exceeded(text),
            Failure::Refused(_) => Status::unknown(text),
            Failure::Io { .. } => Status::internal(text),
        }
    })?;
    Ok(CheckpointContainerResponse {})
}

fn location(text: &str) -> Result<PathBuf, Status> {
    let path = PathBuf::from(text);
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    if path.is_absolute() && path.file_name().is_some() && path.components().all(plain) && !text.ends_with('/') {
        return Ok(path);
    }
    Err(Status::invalid_argument(format!("location: {text:?} is not the absolute path of a file")))
}

#[cfg(test)]
mod tests {
    use super::location;

    #[test]
    fn a_location_is_a_files_path() {
        assert!(location("/var/lib/kubelet/checkpoints/a.tar").is_ok());
        for bad in ["", "a.tar", "/", "/a/../b.tar", "/a/", "/a/.."] {
            assert!(location(bad).is_err(), "{bad}");
        }
    }
}
