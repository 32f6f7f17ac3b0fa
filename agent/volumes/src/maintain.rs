//! Keeping what volumes show current.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::Path;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::broadcast::error::RecvError;

use crate::prepare::all;
use crate::{Change, Facts, Kind, Objects};

/// How long to wait after an update that failed.
pub(crate) const RETRY: Duration = Duration::from_secs(10);

/// Keeps the content of a prepared pod's volumes current; never returns.
///
/// Run it as a task of the pod's worker. When the pod's own metadata changes, start it anew with the new pod. Before
/// [`crate::teardown`], abort the task and await its handle: then nothing writes any more.
pub async fn maintain(pod: &Pod, objects: &dyn Objects, root: &Path, facts: &Facts) -> Infallible {
    let mut changes = objects.changes();
    let shown = shown(pod);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    loop {
        let next = match all(pod, objects, root, facts).await {
            Ok((_, next)) => next,
            Err(error) => {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                tracing::warn!(pod = %format!("{namespace}/{name}"), %error, "volumes can't be brought up to date yet");
                Some(SystemTime::now() + RETRY)
            }
        };
        let due = async {
            match next {
                Some(next) => tokio::time::sleep(next.duration_since(SystemTime::now()).unwrap_or_default()).await,
                None => std::future::pending().await,
            }
        };
        let changed = async {
            loop {
                match changes.recv().await {
                    Ok(Change { kind, namespace: of, name }) => {
                        if of == namespace && shown.contains(&(kind, name)) {
                            return;
                        }
                    }
                    // Something was missed: look at everything.
                    Err(RecvError::Lagged(_)) => return,
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            () = due => {}
            () = changed => {}
        }
    }
}

/// The objects that the pod's volumes show.
fn shown(pod: &Pod) -> BTreeSet<(Kind, String)> {
    let mut shown = BTreeSet::new();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        if let Some(source) = &volume.config_map {
            shown.insert((Kind::ConfigMap, source.name.clone()));
        }
        if let Some(name) = volume.secret.as_ref().and_then(|source| source.secret_name.clone()) {
            shown.insert((Kind::Secret, name));
        }
        for part in volume.projected.iter().flat_map(|source| source.sources.iter().flatten()) {
            if let Some(source) = &part.config_map {
                shown.insert((Kind::ConfigMap, source.name.clone()));
            }
            if let Some(source) = &part.secret {
                shown.insert((Kind::Secret, source.name.clone()));
            }
        }
    }
    shown
}
