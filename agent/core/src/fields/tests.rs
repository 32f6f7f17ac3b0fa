use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::*;

/// `TYPE FIELD KIND` for every type that a PodSpec can hold, from Kubernetes' own OpenAPI v3 document: see
/// `examples/openapi-fields.rs`. KIND is the type of an object or of a list's items, `-` for anything else.
const SCHEMA: &str = include_str!("../../data/pod-fields-v1.37.txt");

fn schema() -> BTreeMap<&'static str, BTreeMap<&'static str, &'static str>> {
    let mut out: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for line in SCHEMA.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [kind, field, inner] = words[..] else { panic!("bad line {line:?}") };
        out.entry(kind).or_default().insert(field, inner);
    }
    out
}

#[test]
fn the_table_lists_every_field_of_the_schema_and_no_other() {
    let schema = schema();
    let mut seen = BTreeSet::new();
    let mut queue = vec![&table::POD_SPEC];
    while let Some(kind) = queue.pop() {
        if !seen.insert(kind.name) {
            continue;
        }
        let declared = schema.get(kind.name).unwrap_or_else(|| panic!("no type {} in the schema", kind.name));
        let listed: BTreeSet<&str> = kind.fields.iter().map(|(name, _)| *name).collect();
        assert_eq!(listed.len(), kind.fields.len(), "a field of {} is listed twice", kind.name);
        assert_eq!(listed, declared.keys().copied().collect(), "fields of {}", kind.name);
        for (name, support) in kind.fields {
            if let Support::Nested(inner) = support {
                assert_eq!(inner.name, declared[name], "type of {}.{name}", kind.name);
                queue.push(inner);
            }
        }
    }
    assert!(seen.len() > 30, "only {} types were walked", seen.len());
}

#[test]
fn fields_are_refused_by_their_path() {
    let rows = [
        (
            json!({"containers": [{"name": "a"}, {"name": "b", "volumeDevices": [{"name": "v", "devicePath": "/v"}]}]}),
            "spec.containers[1].volumeDevices",
        ),
        (
            json!({"containers": [], "initContainers": [{"name": "a", "restartPolicy": "Always", "volumeDevices": [{"name": "v", "devicePath": "/v"}]}]}),
            "spec.initContainers[0].volumeDevices",
        ),
        (
            json!({"containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}),
            "spec.volumes[0].persistentVolumeClaim",
        ),
        (json!({"containers": [], "hostUsers": false}), ""),
        (json!({"containers": [], "shareProcessNamespace": true}), ""),
        (json!({"containers": [], "shareProcessNamespace": false}), ""),
        (
            json!({"containers": [{"name": "a", "volumeMounts": [{"name": "v", "mountPath": "/v", "mountPropagation": "Bidirectional"}]}]}),
            "spec.containers[0].volumeMounts[0].mountPropagation",
        ),
        (json!({"containers": [{"name": "a", "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}}]}), ""),
        (
            json!({"containers": [{"name": "a", "securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "x"}}}]}),
            "spec.containers[0].securityContext.seccompProfile.localhostProfile",
        ),
        (json!({"containers": [{"name": "a", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}]}), ""),
        (json!({"containers": [{"name": "a", "startupProbe": {"grpc": {"port": 1, "service": "s"}}}]}), ""),
        (json!({"containers": [], "ephemeralContainers": [{"name": "debug"}]}), ""),
    ];
    for (spec, path) in rows {
        let typed: PodSpec = serde_json::from_value(spec.clone()).expect("a spec");
        assert_eq!(refused(&typed).map(|r| r.path).unwrap_or_default(), path, "{spec}");
    }
}

#[test]
fn a_pod_as_the_api_server_defaults_it_is_accepted() {
    let spec = json!({
        "volumes": [{"name": "kube-api-access-x", "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}}],
        "containers": [{"name": "web", "image": "web:1", "resources": {}, "imagePullPolicy": "IfNotPresent",
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "ports": [{"containerPort": 80, "protocol": "TCP"}],
            "volumeMounts": [{"name": "kube-api-access-x", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}],
        "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
        "serviceAccountName": "default", "serviceAccount": "default", "nodeName": "n", "securityContext": {},
        "schedulerName": "default-scheduler", "priority": 0, "enableServiceLinks": true,
        "preemptionPolicy": "PreemptLowerPriority",
        "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]});
    let typed: PodSpec = serde_json::from_value(spec).expect("a spec");
    assert_eq!(refused(&typed), None);
}
