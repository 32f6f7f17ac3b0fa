//! Taking a node out: no new pods, then its pods moved elsewhere, then its object deleted.
//!
//! The first two are within a node's own rights: NodeRestriction lets it change its own `spec.unschedulable` and evict pods
//! that are bound to it (`kubernetes@v1.37.2:plugin/pkg/admission/noderestriction/admission.go#admitPodEviction`). The
//! last is not, and takes an administrator's.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Error, ResourceExt};
use serde_json::json;
use tokio::time::sleep;

/// A PodDisruptionBudget says no, and does not say when it will say yes (kubectl drain's pause).
const REFUSED: Duration = Duration::from_secs(5);

/// What the API server answered instead.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct LeaveError {
    doing: String,
    source: Box<Error>,
}

fn failed(doing: impl Into<String>) -> impl FnOnce(Error) -> LeaveError {
    move |source| LeaveError { doing: doing.into(), source: Box::new(source) }
}

/// Keeps new pods away from the node. `false` when there is no node of that name.
///
/// # Errors
/// What the API server answers.
pub async fn cordon(client: &Client, node: &str) -> Result<bool, LeaveError> {
    let api: Api<Node> = Api::all(client.clone());
    let patch = json!({"spec": {"unschedulable": true}});
    match api.patch(node, &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(_) => Ok(true),
        Err(Error::Api(answer)) if answer.code == 404 => Ok(false),
        Err(error) => Err(failed(format!("cordoning node {node:?}"))(error)),
    }
}

/// Evicts the node's pods, those of DaemonSets and static ones aside: the former would come back at once, the latter are no
/// one's to move. Waits while a PodDisruptionBudget refuses, and with `wait` until the pods are gone; the caller bounds that.
///
/// `told` hears of each pod: its namespace and name, and what is happening to it.
///
/// # Errors
/// What the API server answers; some pods may be evicted by then.
pub async fn evict(
    client: &Client,
    node: &str,
    wait: bool,
    mut told: impl FnMut(&str, &str),
) -> Result<(), LeaveError> {
    let all: Api<Pod> = Api::all(client.clone());
    let selector = format!("spec.nodeName={node}");
    let pods = all.list(&ListParams::default().fields(&selector)).await.map_err(failed("listing the node's pods"))?;
    let mut leaving = BTreeSet::new();
    for pod in pods.items.iter().filter(|pod| is_evictable(pod)) {
        let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
        if evict_one(client, pod, &name, &mut told).await? {
            leaving.insert(pod.uid().unwrap_or_default());
        }
    }
    if !wait || leaving.is_empty() {
        return Ok(());
    }
    let mut events = watcher(all, watcher::Config::default().fields(&selector)).default_backoff().boxed();
    let mut listed = BTreeSet::new();
    while !leaving.is_empty() {
        match events.try_next().await {
            Ok(Some(watcher::Event::Init)) => listed.clear(),
            Ok(Some(watcher::Event::InitApply(pod))) => {
                listed.insert(pod.uid().unwrap_or_default());
            }
            Ok(Some(watcher::Event::InitDone)) => leaving.retain(|uid| listed.contains(uid)),
            Ok(Some(watcher::Event::Delete(pod))) => {
                if leaving.remove(&pod.uid().unwrap_or_default()) {
                    told(&format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any()), "gone");
                }
            }
            Ok(Some(watcher::Event::Apply(_))) => {}
            Ok(None) => break,
            Err(error) => tracing::debug!(%error, "the watch of the node's pods broke; it is made again"),
        }
    }
    Ok(())
}

/// Whether the pod is on its way out now.
async fn evict_one(
    client: &Client,
    pod: &Pod,
    name: &str,
    told: &mut impl FnMut(&str, &str),
) -> Result<bool, LeaveError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let mut is_told = false;
    loop {
        match api.evict(&pod.name_any(), &EvictParams::default()).await {
            Ok(_) => {
                told(name, "evicted");
                return Ok(true);
            }
            Err(Error::Api(answer)) if answer.code == 404 => return Ok(false),
            Err(Error::Api(answer)) if answer.code == 429 => {
                if !is_told {
                    told(name, &format!("waits: {}", answer.message));
                    is_told = true;
                }
                sleep(REFUSED).await;
            }
            Err(error) => return Err(failed(format!("evicting pod {name}"))(error)),
        }
    }
}

fn is_evictable(pod: &Pod) -> bool {
    let metadata = &pod.metadata;
    let mirror = metadata.annotations.as_ref().is_some_and(|all| all.contains_key("kubernetes.io/config.mirror"));
    let owners = metadata.owner_references.iter().flatten();
    let by_daemon_set = owners.into_iter().any(|owner| owner.controller == Some(true) && owner.kind == "DaemonSet");
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !mirror && !by_daemon_set && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Deletes the node's object; one that is gone already is fine. Takes an administrator's client.
///
/// # Errors
/// What the API server answers.
pub async fn delete_node(client: &Client, node: &str) -> Result<(), LeaveError> {
    let api: Api<Node> = Api::all(client.clone());
    match api.delete(node, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(Error::Api(answer)) if answer.code == 404 => Ok(()),
        Err(error) => Err(failed(format!("deleting node {node:?}"))(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value(value).expect("a pod")
    }

    #[test]
    fn what_would_come_back_or_has_ended_is_left_alone() {
        assert!(is_evictable(&pod(json!({"metadata": {"name": "a"}}))));
        let owned = |kind: &str| {
            let owner = json!({"apiVersion": "apps/v1", "kind": kind, "name": "o", "uid": "u", "controller": true});
            pod(json!({"metadata": {"ownerReferences": [owner]}, "status": {"phase": "Running"}}))
        };
        assert!(is_evictable(&owned("ReplicaSet")));
        assert!(!is_evictable(&owned("DaemonSet")));
        assert!(!is_evictable(&pod(json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}))));
        assert!(!is_evictable(&pod(json!({"metadata": {}, "status": {"phase": "Succeeded"}}))));
    }
}
