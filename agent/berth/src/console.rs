//! Pods told on the terminal, step by step.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use berth_pods::{Event, EventKind, Publisher};
use k8s_openapi::api::core::v1::{Pod, PodStatus};

/// The publisher of `berth standalone`: one line a step, none twice.
#[derive(Debug, Default)]
pub(crate) struct Console {
    /// The last line about each pod's state, by UID.
    said: Mutex<HashMap<String, String>>,
}

impl Console {
    fn say(&self, pod: &Pod, line: &str) {
        println!("  {:<20} {line}", pod.metadata.name.as_deref().unwrap_or("?"));
    }
}

impl Publisher for Console {
    fn publish(&self, pod: &Pod, status: PodStatus) {
        let line = state_of(pod, &status);
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.get(&uid) != Some(&line) {
            self.say(pod, &line);
            said.insert(uid, line);
        }
    }

    fn deleted(&self, pod: &Pod) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.said.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        self.say(pod, "gone");
    }

    fn event(&self, pod: &Pod, event: Event) {
        let mark = if event.kind == EventKind::Warning { "! " } else { "" };
        self.say(pod, &format!("{mark}{}: {}", event.reason, event.message));
    }
}

/// One line: the phase, and once Ready where to reach it.
fn state_of(pod: &Pod, status: &PodStatus) -> String {
    let condition = |kind: &str| {
        status.conditions.iter().flatten().any(|condition| condition.type_ == kind && condition.status == "True")
    };
    let phase = status.phase.as_deref().unwrap_or("Pending");
    if phase == "Running" && condition("Ready") {
        let urls = urls(pod, status);
        return if urls.is_empty() { "Ready".into() } else { format!("Ready    {}", urls.join("  ")) };
    }
    let waiting =
        status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten()).find_map(
            |container| {
                let waiting = container.state.as_ref()?.waiting.as_ref()?;
                let reason = waiting.reason.as_deref().filter(|reason| *reason != "ContainerCreating")?;
                Some(match waiting.message.as_deref() {
                    Some(message) => format!("{reason}: {message}"),
                    None => reason.to_owned(),
                })
            },
        );
    match waiting {
        Some(reason) => format!("{phase}  {reason}"),
        None => phase.to_owned(),
    }
}

/// Where a browser on this machine reaches the pod's TCP ports.
fn urls(pod: &Pod, status: &PodStatus) -> Vec<String> {
    let ports =
        pod.spec.iter().flat_map(|spec| &spec.containers).flat_map(|container| container.ports.iter().flatten());
    let mut urls = Vec::new();
    for port in ports.filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP") {
        if let Some(ip) = status.pod_ip.as_deref() {
            let ip = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
            urls.push(format!("http://{ip}:{}", port.container_port));
        }
        if let Some(host_port) = port.host_port {
            urls.push(format!("http://127.0.0.1:{host_port}"));
        }
    }
    urls
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Container, ContainerPort, PodCondition, PodSpec};

    use super::*;

    #[test]
    fn a_ready_pod_says_where_it_is() {
        let port = ContainerPort { container_port: 80, host_port: Some(8080), ..ContainerPort::default() };
        let container = Container { ports: Some(vec![port]), ..Container::default() };
        let spec = PodSpec { containers: vec![container], ..PodSpec::default() };
        let pod = Pod { spec: Some(spec), ..Pod::default() };
        let ready = PodCondition { type_: "Ready".into(), status: "True".into(), ..PodCondition::default() };
        let mut status =
            PodStatus { phase: Some("Running".into()), pod_ip: Some("10.88.0.2".into()), ..PodStatus::default() };
        assert_eq!(state_of(&pod, &status), "Running");
        status.conditions = Some(vec![ready]);
        assert_eq!(state_of(&pod, &status), "Ready    http://10.88.0.2:80  http://127.0.0.1:8080");
    }
}
