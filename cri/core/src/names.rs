//! Names under which sandboxes and containers are reserved, and their cgroups. Two requests with one name are the same
//! attempt of the same pod; the second is refused. The form is containerd's, which people know from its errors.

use berth_cri_proto::v1 as cri;

/// `NAME_NAMESPACE_UID_ATTEMPT`.
pub fn sandbox(pod: &cri::PodSandboxMetadata) -> String {
    format!("{}_{}_{}_{}", pod.name, pod.namespace, pod.uid, pod.attempt)
}

/// `CONTAINER_NAME_NAMESPACE_UID_ATTEMPT`.
pub fn container(container: &cri::ContainerMetadata, pod: &cri::PodSandboxMetadata) -> String {
    format!("{}_{}_{}_{}_{}", container.name, pod.name, pod.namespace, pod.uid, container.attempt)
}

/// The cgroup of a container or sandbox below its pod's; `/berth` where the caller names no parent.
pub fn cgroup(parent: &str, id: &str) -> String {
    let parent = if parent.is_empty() { "/berth" } else { parent.trim_end_matches('/') };
    format!("{parent}/{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_attempt_are_equal_and_of_two_are_not() {
        let pod = |attempt| cri::PodSandboxMetadata {
            name: "web".into(),
            uid: "u".into(),
            namespace: "default".into(),
            attempt,
        };
        assert_eq!(sandbox(&pod(1)), "web_default_u_1");
        assert_ne!(sandbox(&pod(1)), sandbox(&pod(2)));
        let metadata = cri::ContainerMetadata { name: "nginx".into(), attempt: 3 };
        // The pod's attempt is not part of it: a container is reserved per pod, not per sandbox.
        assert_eq!(container(&metadata, &pod(1)), "nginx_web_default_u_3");
    }

    #[test]
    fn a_cgroup_lies_below_its_parent() {
        assert_eq!(cgroup("/kubepods/besteffort/podx", "c"), "/kubepods/besteffort/podx/c");
        assert_eq!(cgroup("", "c"), "/berth/c");
        assert_eq!(cgroup("/", "c"), "/c");
    }
}
