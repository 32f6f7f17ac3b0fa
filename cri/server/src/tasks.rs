//! Work that outlives the call that asked for it.

use tokio_util::task::TaskTracker;
use tonic::Status;

/// The changes in flight.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
}

impl Tasks {
    /// Runs `work` in a task of its own and awaits it. Dropping this future leaves the work running.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<T, Status> {
        match self.tracker.spawn(work).await {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::error!(call = name, %error, "a call ended abnormally");
                Err(Status::internal(format!("{name} ended abnormally: {error}")))
            }
        }
    }

    /// Runs `work` in a task that nobody awaits.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(work);
    }

    /// Waits until nothing is in flight; what is begun afterwards is not waited for.
    pub(crate) async fn finish(&self) {
        self.tracker.close();
        self.tracker.wait().await;
        self.tracker.reopen();
    }
}

/// Runs blocking work on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Status::internal(format!("a step ended abnormally: {error}")))
}
