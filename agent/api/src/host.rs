//! What the API shows.

use std::fmt;
use std::path::PathBuf;

use berth_pods::{LogError, Pods};
use k8s_openapi::api::core::v1::Pod;

/// The node behind the API.
pub trait Host: fmt::Debug + Send + Sync + 'static {
    /// Every pod that the node runs or stops, with its status.
    fn pods(&self) -> Vec<Pod>;

    /// The log file of a container's current (or previous) instance.
    ///
    /// # Errors
    /// Why there is none.
    fn log_path(&self, namespace: &str, pod: &str, container: &str, previous: bool) -> Result<PathBuf, LogError>;

    /// Whether the container may still write to its log.
    fn is_running(&self, namespace: &str, pod: &str, container: &str) -> bool;
}

impl Host for Pods {
    fn pods(&self) -> Vec<Pod> {
        let with_status = |view: berth_pods::PodView| Pod { status: Some(view.status), ..Pod::clone(&view.pod) };
        self.list().into_iter().map(with_status).collect()
    }

    fn log_path(&self, namespace: &str, pod: &str, container: &str, previous: bool) -> Result<PathBuf, LogError> {
        Self::log_path(self, namespace, pod, container, previous)
    }

    fn is_running(&self, namespace: &str, pod: &str, container: &str) -> bool {
        self.list().iter().any(|view| {
            let metadata = &view.pod.metadata;
            let status = &view.status;
            let lists =
                [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
            metadata.namespace.as_deref() == Some(namespace)
                && metadata.name.as_deref() == Some(pod)
                && lists
                    .into_iter()
                    .flatten()
                    .flatten()
                    .any(|of| of.name == container && of.state.as_ref().is_some_and(|state| state.running.is_some()))
        })
    }
}
