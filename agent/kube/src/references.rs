//! Which objects the node's pods refer to.

use std::collections::{BTreeMap, BTreeSet};

use berth_volumes::Kind;
use k8s_openapi::api::core::v1::Pod;

/// Kind, namespace and name of an object.
pub(crate) type Key = (Kind, String, String);

/// By pod UID.
#[derive(Debug, Default)]
pub(crate) struct References {
    of: BTreeMap<String, BTreeSet<Key>>,
}

impl References {
    pub(crate) fn set(&mut self, pod: &Pod) {
        if let Some(uid) = &pod.metadata.uid {
            self.of.insert(uid.clone(), of(pod));
        }
    }

    pub(crate) fn remove(&mut self, uid: &str) {
        self.of.remove(uid);
    }

    pub(crate) fn retain(&mut self, uids: &[String]) {
        let uids: BTreeSet<_> = uids.iter().collect();
        self.of.retain(|uid, _| uids.contains(uid));
    }

    pub(crate) fn all(&self) -> BTreeSet<Key> {
        self.of.values().flatten().cloned().collect()
    }
}

fn of(pod: &Pod) -> BTreeSet<Key> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let mut keys = BTreeSet::new();
    let mut add = |kind: Kind, name: &str| {
        keys.insert((kind, namespace.to_owned(), name.to_owned()));
    };
    let Some(spec) = &pod.spec else { return BTreeSet::new() };
    for secret in spec.image_pull_secrets.iter().flatten() {
        add(Kind::Secret, &secret.name);
    }
    for volume in spec.volumes.iter().flatten() {
        if let Some(source) = &volume.config_map {
            add(Kind::ConfigMap, &source.name);
        }
        if let Some(name) = volume.secret.as_ref().and_then(|source| source.secret_name.as_deref()) {
            add(Kind::Secret, name);
        }
        for part in volume.projected.iter().flat_map(|source| source.sources.iter().flatten()) {
            if let Some(source) = &part.config_map {
                add(Kind::ConfigMap, &source.name);
            }
            if let Some(source) = &part.secret {
                add(Kind::Secret, &source.name);
            }
        }
    }
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        for source in container.env_from.iter().flatten() {
            if let Some(source) = &source.config_map_ref {
                add(Kind::ConfigMap, &source.name);
            }
            if let Some(source) = &source.secret_ref {
                add(Kind::Secret, &source.name);
            }
        }
        for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
            if let Some(source) = &source.config_map_key_ref {
                add(Kind::ConfigMap, &source.name);
            }
            if let Some(source) = &source.secret_key_ref {
                add(Kind::Secret, &source.name);
            }
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_that_names_an_object_is_found() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "n", "uid": "u"},
            "spec": {
                "imagePullSecrets": [{"name": "a"}],
                "volumes": [{"name": "v", "configMap": {"name": "b"}}, {"name": "w", "secret": {"secretName": "c"}},
                    {"name": "x", "projected": {"sources": [{"configMap": {"name": "d"}}, {"secret": {"name": "e"}}]}}],
                "containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "f"}}, {"secretRef": {"name": "g"}}],
                    "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "h", "key": "k"}}}]}],
                "initContainers": [{"name": "i", "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "i", "key": "k"}}}]}],
            },
        }))
        .expect("a pod");
        let mut references = References::default();
        references.set(&pod);
        let names: Vec<_> = references.all().into_iter().map(|(kind, _, name)| format!("{kind} {name}")).collect();
        let expected = ["b", "d", "f", "h"].map(|n| format!("configmap {n}")).into_iter();
        let expected: Vec<_> = expected.chain(["a", "c", "e", "g", "i"].map(|n| format!("secret {n}"))).collect();
        assert_eq!(names, expected);
        references.retain(&[]);
        assert!(references.all().is_empty());
    }
}
