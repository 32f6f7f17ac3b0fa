//! From the runtime's and the cluster's events to the workers that they concern.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use berth_agent_core::names;
use berth_cri_proto::v1 as cri;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::broadcast::error::RecvError;
use tonic::{Code, Status};

use super::{Pods, lock};
use crate::Cri;
use crate::worker::Message;

/// How long to wait before the runtime's events are asked for again.
const RECONNECT: Duration = Duration::from_secs(1);
/// How often a runtime without events is listed.
const WITHOUT_EVENTS: Duration = Duration::from_secs(1);

type Events = Result<BoxStream<'static, Result<cri::ContainerEventResponse, Status>>, Status>;

/// Routes container events until the agent ends.
pub(super) async fn runtime(pods: Weak<Pods>, mut events: Events) {
    loop {
        let mut pause = RECONNECT;
        match events {
            Ok(mut stream) => {
                while let Some(event) = stream.next().await {
                    let Some(pods) = pods.upgrade() else { return };
                    match event {
                        Ok(event) => deliver(&pods, event),
                        Err(error) => {
                            tracing::warn!(%error, "the runtime's event stream broke");
                            break;
                        }
                    }
                }
            }
            Err(error) if error.code() == Code::Unimplemented => pause = WITHOUT_EVENTS,
            Err(error) => tracing::warn!(%error, "the runtime has no events for us"),
        }
        tokio::time::sleep(pause).await;
        let Some(strong) = pods.upgrade() else { return };
        events = strong.shared.cri.events().await;
        // What happened in between.
        compare(&strong).await;
    }
}

fn deliver(pods: &Pods, event: cri::ContainerEventResponse) {
    let of_sandbox = event.pod_sandbox_status.and_then(|status| status.metadata).map(|metadata| metadata.uid);
    let of_containers =
        || event.containers_statuses.iter().find_map(|status| status.labels.get(names::POD_UID)).cloned();
    let uid = of_sandbox.filter(|uid| !uid.is_empty()).or_else(of_containers);
    let book = lock(&pods.book);
    let owner = uid.and_then(|uid| book.workers.get(&uid)).or_else(|| {
        // An event about a container that is known to one of them.
        let of = |handle: &&super::Handle| lock(&handle.view).signature.iter().any(|(id, _)| *id == event.container_id);
        book.workers.values().find(of)
    });
    if let Some(handle) = owner {
        let _ = handle.inbox.send(Message::Look(Some(event.container_id)));
    }
}

/// Lists the runtime now and then, for events that got lost.
pub(super) async fn relist(pods: Weak<Pods>) {
    let Some(period) = pods.upgrade().map(|pods| pods.shared.config.relist) else { return };
    loop {
        tokio::time::sleep(period.max(Duration::from_secs(1))).await;
        let Some(pods) = pods.upgrade() else { return };
        compare(&pods).await;
    }
}

/// Tells each worker whose pod looks otherwise than it last saw it.
async fn compare(pods: &Pods) {
    let listed = match list(&pods.shared.cri).await {
        Ok(listed) => listed,
        Err(error) => {
            tracing::warn!(%error, "the runtime can't be listed");
            return;
        }
    };
    let book = lock(&pods.book);
    for (uid, handle) in &book.workers {
        let now = listed.get(uid).map(|entry| entry.signature.as_slice()).unwrap_or_default();
        if lock(&handle.view).signature != now {
            let _ = handle.inbox.send(Message::Look(None));
        }
    }
}

/// Routes changes of objects to the workers, which know whether they wait for one.
pub(super) async fn objects(pods: Weak<Pods>) {
    let Some(mut changes) = pods.upgrade().map(|pods| pods.shared.objects.changes()) else { return };
    loop {
        let change = match changes.recv().await {
            Ok(change) => change,
            // What was missed is tried again by time.
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        let Some(pods) = pods.upgrade() else { return };
        for handle in lock(&pods.book).workers.values() {
            let _ = handle.inbox.send(Message::Object(change.clone()));
        }
    }
}

/// What the runtime holds of one pod.
#[derive(Debug)]
pub(super) struct Listed {
    /// As much of the pod as its sandbox tells.
    pub(super) pod: Pod,
    /// Ids and states, sorted.
    pub(super) signature: Vec<(String, i32)>,
}

/// Everything that the runtime holds for a kubelet, by pod UID.
pub(super) async fn list(runtime: &Cri) -> Result<BTreeMap<String, Listed>, Status> {
    let mut out: BTreeMap<String, Listed> = BTreeMap::new();
    let sandboxes = runtime.list_pod_sandbox(cri::ListPodSandboxRequest { filter: None }).await?.items;
    for sandbox in sandboxes {
        let Some(uid) = sandbox.labels.get(names::POD_UID).filter(|uid| !uid.is_empty()) else { continue };
        let metadata = sandbox.metadata.unwrap_or_default();
        let entry = out.entry(uid.clone()).or_insert_with(|| Listed {
            pod: leftover(uid.clone(), metadata.namespace, metadata.name, None),
            signature: Vec::new(),
        });
        entry.signature.push((sandbox.id, sandbox.state));
    }
    let containers = runtime.list_containers(cri::ListContainersRequest { filter: None }).await?.containers;
    for container in containers {
        let label = |name: &str| container.labels.get(name).cloned().unwrap_or_default();
        let uid = label(names::POD_UID);
        if uid.is_empty() {
            continue;
        }
        let grace = container.annotations.get(names::TERMINATION_GRACE_PERIOD).and_then(|text| text.parse().ok());
        let entry = out.entry(uid.clone()).or_insert_with(|| Listed {
            pod: leftover(uid, label(names::POD_NAMESPACE), label(names::POD_NAME), None),
            signature: Vec::new(),
        });
        if let (Some(grace), Some(spec)) = (grace, entry.pod.spec.as_mut()) {
            spec.termination_grace_period_seconds = Some(grace);
        }
        entry.signature.push((container.id.clone(), container.state));
    }
    for entry in out.values_mut() {
        entry.signature.sort_unstable();
    }
    Ok(out)
}

/// A pod of which nobody knows more than this.
pub(super) fn leftover(uid: String, namespace: String, name: String, grace: Option<i64>) -> Pod {
    Pod {
        metadata: ObjectMeta { uid: Some(uid), name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
        spec: Some(PodSpec { termination_grace_period_seconds: grace, ..PodSpec::default() }),
        ..Pod::default()
    }
}
