//! Where the pods' story is told: the API server in a cluster, the terminal in standalone mode.

use std::fmt;

use k8s_openapi::api::core::v1::{Pod, PodStatus};

/// Takes what the workers have to say. Every call returns at once: an implementation queues, keeps only the newest
/// status of a pod, and retries on its own.
pub trait Publisher: fmt::Debug + Send + Sync + 'static {
    /// The pod's status as it is now. Called only when it differs from the last one published for this UID.
    fn publish(&self, pod: &Pod, status: PodStatus);

    /// Everything of this pod is gone from the node and its deletion was asked for: an API pod is now deleted with
    /// grace period 0 and its UID as precondition. Called again on a restart that finds the pod still there.
    fn deleted(&self, pod: &Pod);

    /// Something happened that people want to read.
    fn event(&self, pod: &Pod, event: Event);
}

/// One event about a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Normal or Warning.
    pub kind: EventKind,
    /// CamelCase, as the kubelet names it (`kubernetes@v1.37.2:pkg/kubelet/events/event.go`).
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// `involvedObject.fieldPath`, e.g. `spec.containers{web}`; `None` for the pod as a whole.
    pub field_path: Option<String>,
}

/// An event's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// As planned.
    Normal,
    /// Someone should look.
    Warning,
}

impl EventKind {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}
