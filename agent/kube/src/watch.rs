//! The pods bound to this node, as the API server tells them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use berth_pods::{Pods, Source};
use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::time::sleep;

use crate::ClusterObjects;
use crate::references::References;

/// Hands every pod bound to `node` to `pods`, for ever; `objects` learns which objects are no longer referred to.
pub async fn watch_pods(client: Client, node: &str, pods: Arc<Pods>, objects: Arc<ClusterObjects>) -> Infallible {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let mut events = watcher(Api::<Pod>::all(client), config).default_backoff().boxed();
    let mut references = References::default();
    // The UIDs of a list that is being told.
    let mut listed: Vec<String> = Vec::new();
    loop {
        match events.try_next().await {
            Ok(Some(Event::Init)) => listed.clear(),
            Ok(Some(Event::InitApply(pod))) => {
                listed.extend(pod.metadata.uid.clone());
                set(&pods, &mut references, pod);
            }
            Ok(Some(Event::InitDone)) => {
                references.retain(&listed);
                pods.synced(Source::Api, &listed);
                objects.retain(&references.all());
            }
            Ok(Some(Event::Apply(pod))) => set(&pods, &mut references, pod),
            Ok(Some(Event::Delete(pod))) => {
                let Some(uid) = pod.metadata.uid else { continue };
                references.remove(&uid);
                pods.remove(Source::Api, &uid);
                objects.retain(&references.all());
            }
            Ok(None) => sleep(Duration::from_secs(1)).await,
            Err(error) => tracing::warn!(%error, "the watch of this node's pods broke; it is made again"),
        }
    }
}

fn set(pods: &Pods, references: &mut References, mut pod: Pod) {
    // Half of a pod's size, and nobody here reads it.
    pod.metadata.managed_fields = None;
    references.set(&pod);
    pods.set(Source::Api, pod);
}
