//! All pods of this node.

use std::path::PathBuf;
use std::sync::Arc;

use berth_volumes::Objects;
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use crate::{Config, Cri, NodeFacts, Publisher};

/// Where a pod is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// The API server.
    Api,
    /// A folder of manifests.
    Files,
}

/// A pod as it is desired, and as it is.
#[derive(Debug, Clone)]
pub struct PodView {
    /// As declared by its source.
    pub pod: Arc<Pod>,
    /// Its source.
    pub source: Source,
    /// As last published.
    pub status: PodStatus,
}

/// Why a container's log can't be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// No such pod here.
    #[error("pod {0:?} not found")]
    NoPod(String),
    /// The pod declares no such container.
    #[error("container {container:?} in pod {pod:?} is not valid")]
    NoContainer {
        /// The pod's name.
        pod: String,
        /// What was asked for.
        container: String,
    },
    /// The container did not start yet.
    #[error("container {container:?} in pod {pod:?} is waiting to start: {reason}")]
    Waiting {
        /// The pod's name.
        pod: String,
        /// The container's name.
        container: String,
        /// Its waiting reason.
        reason: String,
    },
    /// It has run only once.
    #[error("previous terminated container {container:?} in pod {pod:?} not found")]
    NoPrevious {
        /// The pod's name.
        pod: String,
        /// The container's name.
        container: String,
    },
}

/// Why the workers can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The runtime does not answer.
    #[error("the container runtime does not answer: {0}")]
    Runtime(Box<tonic::Status>),
}

/// All pods of this node.
#[derive(Debug)]
pub struct Pods {}

impl Pods {
    /// Adopts what the runtime already runs and starts routing its events. `sources` names every source that will call
    /// [`Pods::synced`]: until all have, nothing that the runtime runs is taken for an orphan.
    ///
    /// # Errors
    /// The runtime can't be listed.
    pub async fn start(
        _config: Config,
        _cri: Cri,
        _objects: Arc<dyn Objects>,
        _publisher: Arc<dyn Publisher>,
        _sources: &[Source],
    ) -> Result<Arc<Self>, StartError> {
        Ok(Arc::new(Self {}))
    }

    /// Tells the workers what the node knows of itself. Call it before the first pod is set, and when it changes.
    pub fn set_node(&self, _node: NodeFacts) {}

    /// A pod was added or changed. It is known by its UID.
    pub fn set(&self, _source: Source, _pod: Pod) {}

    /// A pod is no longer declared (deleted from the API without grace, or its file is gone): it is stopped with its
    /// grace period, and everything of it removed.
    pub fn remove(&self, _source: Source, _uid: &str) {}

    /// The source has told every pod that it declares: what it didn't name is gone. Call it again after a gap (a
    /// watch that had to list anew) with the complete list of UIDs.
    pub fn synced(&self, _source: Source, _uids: &[String]) {}

    /// Every pod that is desired or still going away.
    pub fn list(&self) -> Vec<PodView> {
        Vec::new()
    }

    /// The file with the log of a container's current (or previous) instance.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn log_path(&self, _namespace: &str, _pod: &str, _container: &str, _previous: bool) -> Result<PathBuf, LogError> {
        Ok(PathBuf::new())
    }

    /// Stops every pod with its grace period and removes everything of it; returns when all are gone (standalone's
    /// Ctrl-C). The agent itself does not call this when it ends: containers outlive it.
    pub async fn stop_all(&self) {}

    /// Ends the workers and leaves the containers alone.
    pub async fn close(&self) {}
}
