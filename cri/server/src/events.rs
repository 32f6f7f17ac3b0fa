//! What happens, told to whoever listens.

use berth_cri_proto::v1::{ContainerEventResponse, ContainerEventType, PodSandboxStatus};

use crate::runtime::Runtime;

impl Runtime {
    /// Tells of a container, or of a sandbox (then `container` is its own id).
    pub(crate) fn tell(&self, kind: ContainerEventType, container: &str, sandbox: &str) {
        if self.events.receiver_count() == 0 {
            return;
        }
        let status = self.world().sandboxes.get(sandbox).cloned().map(|sandbox| sandbox.status());
        self.tell_with(kind, container, sandbox, status);
    }

    /// As [`Runtime::tell`], of a sandbox that may be gone from the list by now.
    pub(crate) fn tell_with(
        &self,
        kind: ContainerEventType,
        container: &str,
        sandbox: &str,
        status: Option<PodSandboxStatus>,
    ) {
        let event = ContainerEventResponse {
            container_id: container.to_owned(),
            container_event_type: kind.into(),
            created_at: berth_sys::process::now(),
            pod_sandbox_status: status,
            containers_statuses: self.containers_of(sandbox).iter().map(|container| container.status()).collect(),
        };
        // An error only says that the last listener just left.
        let _ = self.events.send(event);
    }
}
