//! Events about pods: what repeats is counted, not written anew.

use std::collections::HashMap;

use berth_pods::Event;
use k8s_openapi::api::core::v1::{Event as EventObject, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Error};
use serde_json::json;
use tokio::sync::mpsc;

use crate::node::{now, timestamp};

/// Events that wait to be written; more are dropped, for people are better served by recent ones.
const WAITING: usize = 1000;
/// How many different events are remembered as written.
const REMEMBERED: usize = 4096;

/// Writes events in the background.
#[derive(Debug)]
pub(crate) struct Recorder {
    sender: mpsc::Sender<(ObjectReference, Event, Time)>,
}

impl Recorder {
    /// Must be made within a tokio runtime.
    pub(crate) fn new(client: Client, node: &str) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(write(client, node.to_owned(), receiver));
        Self { sender }
    }

    pub(crate) fn record(&self, pod: &Pod, event: Event) {
        let metadata = &pod.metadata;
        let object = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
            field_path: event.field_path.clone(),
        };
        if self.sender.try_send((object, event, now())).is_err() {
            tracing::debug!("an event was dropped: too many wait");
        }
    }
}

/// What makes two events the same.
type Same = (Option<String>, Option<String>, &'static str, String);

/// An event that was written.
struct Written {
    name: String,
    count: i32,
}

async fn write(client: Client, node: String, mut receiver: mpsc::Receiver<(ObjectReference, Event, Time)>) {
    let mut written: HashMap<Same, Written> = HashMap::new();
    while let Some((object, event, at)) = receiver.recv().await {
        let same = (object.uid.clone(), event.field_path.clone(), event.reason, event.message.clone());
        let api: Api<EventObject> = Api::namespaced(client.clone(), object.namespace.as_deref().unwrap_or("default"));
        if let Some(known) = written.get_mut(&same) {
            known.count = known.count.saturating_add(1);
            let patch = Patch::Merge(json!({"count": known.count, "lastTimestamp": at}));
            match api.patch(&known.name, &PatchParams::default(), &patch).await {
                Ok(_) => continue,
                // It has aged out: write a new one.
                Err(Error::Api(answer)) if answer.code == 404 => drop(written.remove(&same)),
                Err(error) => {
                    tracing::debug!(%error, "an event could not be counted");
                    continue;
                }
            }
        }
        match api.create(&PostParams::default(), &new(&node, &object, &event, &at)).await {
            Ok(created) => {
                if written.len() >= REMEMBERED {
                    written.clear();
                }
                written.insert(same, Written { name: created.metadata.name.unwrap_or_default(), count: 1 });
            }
            // The namespace is going away, or the server is: events are not worth a retry that holds others up.
            Err(error) => tracing::debug!(%error, reason = event.reason, "an event could not be written"),
        }
    }
}

fn new(node: &str, object: &ObjectReference, event: &Event, at: &Time) -> EventObject {
    let nanos = timestamp().as_nanosecond();
    EventObject {
        metadata: ObjectMeta {
            name: Some(format!("{}.{nanos:x}", object.name.as_deref().unwrap_or("pod"))),
            namespace: object.namespace.clone(),
            ..ObjectMeta::default()
        },
        involved_object: object.clone(),
        type_: Some(event.kind.as_str().to_owned()),
        reason: Some(event.reason.to_owned()),
        message: Some(event.message.clone()),
        source: Some(EventSource { component: Some("kubelet".to_owned()), host: Some(node.to_owned()) }),
        reporting_component: Some("kubelet".to_owned()),
        reporting_instance: Some(node.to_owned()),
        first_timestamp: Some(at.clone()),
        last_timestamp: Some(at.clone()),
        count: Some(1),
        ..EventObject::default()
    }
}
