//! Telling the API server what became of its pods.
//!
//! Of every pod only the newest status is kept until it is told. A failed call is repeated with back-off for as long as
//! the pod exists there; calls for different pods do not wait for each other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_pods::Event;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, Error};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::connect::Cluster;
use crate::events;

/// Calls at once over all pods.
const AT_ONCE: usize = 32;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What a pod from a file carries (`kubernetes@v1.37.2:pkg/kubelet/types#ConfigSourceAnnotationKey`): the API server does
/// not know it.
const SOURCE: &str = "kubernetes.io/config.source";

/// Tells status, deletions and events to the API server.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    events: events::Recorder,
    runtime: Handle,
}

#[derive(Debug)]
struct Shared {
    client: Cluster,
    waiting: Mutex<HashMap<String, Slot>>,
    calls: Semaphore,
}

/// What is yet to be told about one pod. A slot exists while a task tells it.
#[derive(Debug, Default)]
struct Slot {
    namespace: String,
    name: String,
    status: Option<PodStatus>,
    delete: bool,
}

/// How a call ended.
enum Told {
    Done,
    /// The pod is gone, or another one by that name has come: there is nothing more to tell.
    Gone,
    Failed(Error),
}

impl Publisher {
    /// Must be made within a tokio runtime.
    pub fn new(client: Client, node: &str) -> Self {
        let events = events::Recorder::new(client.clone(), node);
        let shared = Shared { client: Cluster(client), waiting: Mutex::default(), calls: Semaphore::new(AT_ONCE) };
        Self { shared: Arc::new(shared), events, runtime: Handle::current() }
    }

    fn put(&self, pod: &Pod, fill: impl FnOnce(&mut Slot)) {
        let Some(uid) = pod.metadata.uid.clone().filter(|_| !is_from_file(pod)) else { return };
        let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let running = waiting.contains_key(&uid);
        let slot = waiting.entry(uid.clone()).or_default();
        slot.namespace = pod.metadata.namespace.clone().unwrap_or_default();
        slot.name = pod.metadata.name.clone().unwrap_or_default();
        fill(slot);
        if !running {
            self.runtime.spawn(self.shared.clone().tell(uid));
        }
    }

    /// How many pods have something yet to be told.
    pub fn waiting(&self) -> usize {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn is_from_file(pod: &Pod) -> bool {
    let source = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(SOURCE));
    source.is_some_and(|source| source != "api")
}

impl berth_pods::Publisher for Publisher {
    fn publish(&self, pod: &Pod, status: PodStatus) {
        self.put(pod, |slot| slot.status = Some(status));
    }

    fn deleted(&self, pod: &Pod) {
        self.put(pod, |slot| slot.delete = true);
    }

    fn event(&self, pod: &Pod, event: Event) {
        if !is_from_file(pod) {
            self.events.record(pod, event);
        }
    }
}

impl Shared {
    /// Tells until nothing is left. The newest status goes before the deletion.
    async fn tell(self: Arc<Self>, uid: String) {
        let mut pause = FIRST_PAUSE;
        loop {
            let Some((api, name, status)) = self.next(&uid) else { return };
            let permit = self.calls.acquire().await;
            let told = match &status {
                Some(status) => told(api.patch_status(&name, &PatchParams::default(), &patch(&uid, status)).await),
                None => told(api.delete(&name, &deletion(&uid)).await),
            };
            drop(permit);
            match told {
                Told::Done if status.is_some() => pause = FIRST_PAUSE,
                Told::Done | Told::Gone => {
                    self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
                    return;
                }
                Told::Failed(error) => {
                    tracing::warn!(pod = %name, %uid, %error, "the API server can't be told yet");
                    self.put_back(&uid, status);
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// What to tell next: a status, or (`None`) the deletion. Ends the slot when there is nothing.
    fn next(&self, uid: &str) -> Option<(Api<Pod>, String, Option<PodStatus>)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = waiting.get_mut(uid)?;
        let status = slot.status.take();
        if status.is_none() && !slot.delete {
            waiting.remove(uid);
            return None;
        }
        Some((Api::namespaced(self.client.0.clone(), &slot.namespace), slot.name.clone(), status))
    }

    fn put_back(&self, uid: &str, status: Option<PodStatus>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = waiting.get_mut(uid)
            && slot.status.is_none()
        {
            slot.status = status;
        }
    }
}

fn told<T>(answer: Result<T, Error>) -> Told {
    match answer {
        Ok(_) => Told::Done,
        Err(Error::Api(answer)) if answer.code == 404 => Told::Gone,
        // The precondition on the UID failed.
        Err(Error::Api(answer)) if answer.code == 409 && answer.message.contains("UID") => Told::Gone,
        Err(Error::Api(answer)) if answer.code == 422 => {
            tracing::error!(reason = %answer.message, "the API server refused a pod's status");
            Told::Done
        }
        Err(error) => Told::Failed(error),
    }
}

fn deletion(uid: &str) -> DeleteParams {
    DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
        ..DeleteParams::default()
    }
}

/// A strategic merge patch: conditions of others stay, ours are replaced by type, and what the status no longer says is
/// taken away. The UID in it is a precondition; there is no resourceVersion, for nobody else writes these fields.
fn patch(uid: &str, status: &PodStatus) -> Patch<Value> {
    let mut body = json!(status);
    if let Value::Object(fields) = &mut body {
        for field in [
            "containerStatuses",
            "ephemeralContainerStatuses",
            "initContainerStatuses",
            "hostIP",
            "hostIPs",
            "message",
            "podIP",
            "podIPs",
            "reason",
        ] {
            fields.entry(field).or_insert(Value::Null);
        }
        // These merge by address: an old one would stay.
        for field in ["podIPs", "hostIPs"] {
            if let Some(Value::Array(addresses)) = fields.get_mut(field) {
                addresses.insert(0, json!({"$patch": "replace"}));
            }
        }
    }
    Patch::Strategic(json!({"metadata": {"uid": uid}, "status": body}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_takes_away_what_is_no_longer_so() {
        let status: PodStatus = serde_json::from_value(json!({
            "phase": "Running", "podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }))
        .expect("a status");
        let Patch::Strategic(body) = patch("u", &status) else { panic!("a strategic merge patch") };
        assert_eq!(body["metadata"], json!({"uid": "u"}));
        assert_eq!(body["status"]["podIPs"], json!([{"$patch": "replace"}, {"ip": "10.0.0.2"}]));
        assert_eq!(body["status"]["reason"], Value::Null);
        assert!(body["status"].as_object().expect("fields").contains_key("containerStatuses"));
        assert_eq!(body["status"]["conditions"], json!([{"type": "Ready", "status": "True"}]));
    }

    #[test]
    fn pods_from_files_are_not_the_api_servers() {
        let pod = |source: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"annotations": {SOURCE: source}}})).expect("a pod")
        };
        assert!(is_from_file(&pod("file")));
        assert!(!is_from_file(&pod("api")));
        assert!(!is_from_file(&Pod::default()));
    }
}
