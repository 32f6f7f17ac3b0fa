//! Runs the lifecycle hooks that containers declare.

use std::sync::Arc;
use std::time::Duration;

use berth_agent_core::names;
use berth_cri_proto::v1 as cri;
use berth_probes::Asked;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared as SharedFuture};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Fact, Job, PATIENCE, Trouble, call, declared, gone_is_fine, words};
use crate::EventKind::{Normal, Warning};
use crate::shared::Shared;

/// Seconds that a container always gets between its stop signal and SIGKILL (`minimumGracePeriodInSeconds`).
const MINIMUM_GRACE: i64 = 2;

/// A preStop hook under way: everyone who waits for it waits for the same one.
pub(crate) type PreStop = SharedFuture<BoxFuture<'static, ()>>;

/// What a hook is about.
#[derive(Debug, Clone)]
pub(crate) struct Hooked {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) container: Container,
    pub(crate) id: String,
    /// The pod's address.
    pub(crate) ip: String,
    /// Cancelled when the instance has ended.
    pub(crate) ended: CancellationToken,
}

impl Hooked {
    /// Runs the hook until it or the container has ended. `Err` is for the container's status and the log.
    async fn run(&self, handler: &LifecycleHandler) -> Result<(), String> {
        let asked = Asked { container: &self.container, id: &self.id, ip: &self.ip };
        let pod = names::describe(&self.pod);
        let hook = berth_probes::hook(handler, &pod, asked, &self.shared.cri);
        let outcome = tokio::select! {
            biased;
            outcome = Box::pin(hook) => outcome,
            () = self.ended.cancelled() => return Err("the container ended before its hook did".to_owned()),
        };
        match outcome {
            Ok(None) => Ok(()),
            Ok(Some(message)) => {
                self.shared.event(&self.pod, None, Warning, "LifecycleHTTPFallback", message);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn tell(&self, reason: &'static str, message: &str, error: &str) {
        tracing::warn!(pod = names::describe(&self.pod), container = self.container.name, error, "{message}");
        self.shared.event(&self.pod, Some(&self.container.name), Warning, reason, message.to_owned());
    }

    /// Begins the container's preStop hook, if it declares one. Nobody needs to wait for it.
    pub(crate) fn pre_stop(self) -> Option<PreStop> {
        let handler = self.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.clone())?;
        let task = tokio::spawn(async move {
            if let Err(error) = self.run(&handler).await {
                self.tell("FailedPreStopHook", "PreStopHook failed", &error);
            }
        });
        Some(task.map(drop).boxed().shared())
    }
}

/// Runs a container's postStart hook.
pub(super) async fn post_start(job: Job, name: &str, id: String) -> Result<Fact, Trouble> {
    let found = declared(&job.pod, name);
    let handler = found.and_then(|container| container.lifecycle.as_ref()?.post_start.as_ref());
    let (Some(container), Some(handler)) = (found, handler) else { return Ok(Fact::Done) };
    let hooked = Hooked {
        shared: job.shared.clone(),
        pod: job.pod.clone(),
        container: container.clone(),
        id,
        ip: job.ips.first().cloned().unwrap_or_default(),
        ended: job.ended.clone(),
    };
    hooked.run(handler).await.map(|()| Fact::Done).map_err(|error| {
        hooked.tell("FailedPostStartHook", "PostStartHook failed", &error);
        Trouble::new("PostStartHookError", error)
    })
}

/// Ends a container within `grace` seconds: its preStop hook first, then its stop signal, and SIGKILL at the end.
pub(super) async fn stop_container(
    job: Job,
    name: &str,
    id: String,
    grace: i64,
    message: String,
) -> Result<Fact, Trouble> {
    job.shared.event(&job.pod, Some(name), Normal, "Killing", message);
    let began = Instant::now();
    let mut left = grace;
    if let Some(hook) = job.pre_stop.clone() {
        let limit = Duration::from_secs(grace.max(0).unsigned_abs());
        if tokio::time::timeout(limit, hook).await.is_err() {
            tracing::info!(pod = names::describe(&job.pod), container = name, grace, "the preStop hook takes too long");
        }
        let taken = i64::try_from(began.elapsed().as_secs()).unwrap_or(i64::MAX);
        left = grace.saturating_sub(taken).max(MINIMUM_GRACE);
    }
    let request = cri::StopContainerRequest { container_id: id, timeout: left };
    let patience = PATIENCE + Duration::from_secs(left.max(0).unsigned_abs());
    let stopped = gone_is_fine(call(patience, job.shared.cri.stop_container(request)).await);
    stopped.map(|()| Fact::Done).map_err(|status| Trouble::new("FailedKillPod", words(&status)))
}
