//! Names that other programs look for: labels, annotations, paths, the pod's own description.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

/// Label of sandboxes and containers: the pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Label of sandboxes and containers: the pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Label of sandboxes and containers: the pod's UID.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Label of containers: their name in the pod.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation of containers: how often they were restarted.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Annotation of containers: a hash of name and image, the kubelet's own.
pub const HASH: &str = "io.kubernetes.container.hash";
/// Annotation of containers.
pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation of containers.
pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Annotation of containers.
pub const TERMINATION_GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
/// Annotation of containers: seconds that this instance's failure makes its successor wait.
pub const BACKOFF: &str = "berth.dev/backoff-seconds";

/// `name_namespace(uid)`, as the kubelet's messages describe a pod.
pub fn describe(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

/// The pod's name.
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The pod's namespace.
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

/// The pod's UID.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// `NAMESPACE_NAME_UID`, the folder with a pod's logs.
pub fn log_folder(namespace: &str, name: &str, uid: &str) -> String {
    format!("{namespace}_{name}_{uid}")
}

/// Where a container instance logs, below the pod's log folder.
pub fn log_file(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

/// The pod's folder below the root folder.
pub fn pod_folder(root: &Path, uid: &str) -> PathBuf {
    root.join("pods").join(uid)
}

/// The file that a container instance writes its termination message to.
pub fn termination_file(root: &Path, uid: &str, container: &str, attempt: u32) -> PathBuf {
    pod_folder(root, uid).join("containers").join(container).join(attempt.to_string())
}

/// The record of the ids of a pod with users of its own.
pub fn users_file(root: &Path, uid: &str) -> PathBuf {
    pod_folder(root, uid).join("userns")
}

/// The pod's managed `/etc/hosts`.
pub fn hosts_file(root: &Path, uid: &str) -> PathBuf {
    pod_folder(root, uid).join("etc-hosts")
}
