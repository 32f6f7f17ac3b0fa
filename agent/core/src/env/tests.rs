use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::*;

#[expect(clippy::needless_pass_by_value, reason = "json! values read better by value")]
fn pod(container: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u-1", "labels": {"app": "web", "a/b": "x\"y"},
                     "annotations": {"note": "line1\nline2"}},
        "spec": {"nodeName": "node-1", "serviceAccountName": "robot", "enableServiceLinks": false, "containers": [container]}}))
    .expect("a pod")
}

fn facts() -> Facts {
    Facts {
        node_name: "node-1".into(),
        host_ips: vec!["192.0.2.1".into()],
        pod_ips: vec!["10.1.0.5".into(), "fd00::5".into()],
        allocatable: [("cpu".to_owned(), 2000), ("memory".to_owned(), 4 << 30)].into(),
    }
}

fn found() -> Found {
    let map = ConfigMap {
        data: Some([("k".to_owned(), "v".to_owned()), ("x.y".to_owned(), "z".to_owned())].into()),
        ..Default::default()
    };
    let secret = Secret { data: Some([("pw".to_owned(), ByteString(vec![0xff, 0x01]))].into()), ..Default::default() };
    Found {
        config_maps: [("cm".to_owned(), Arc::new(map))].into(),
        secrets: [("s".to_owned(), Arc::new(secret))].into(),
        services: Vec::new(),
    }
}

fn run(container: Value) -> Result<Vec<(String, String)>, EnvError> {
    let pod = pod(container);
    let container = &pod.spec.as_ref().expect("spec").containers[0];
    let list = variables(&pod, container, &found(), &facts())?;
    Ok(list.into_iter().map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned())).collect())
}

#[test]
fn values_expand_what_stands_before_them() {
    let env =
        json!([{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(C)$$(A)"}, {"name": "C", "value": "$(B)"}]);
    let list = run(json!({"name": "c", "env": env})).expect("an environment");
    let expected = [("A", "1"), ("B", "1$(C)$(A)"), ("C", "1$(C)$(A)")];
    assert_eq!(list, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[test]
fn env_overrides_env_from_and_prefixes_apply() {
    let container = json!({"name": "c",
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "none", "optional": true}}],
        "env": [{"name": "P_k", "value": "mine"}]});
    let list = run(container).expect("an environment");
    assert_eq!(list, [("P_k".to_owned(), "mine".to_owned()), ("P_x.y".to_owned(), "z".to_owned())]);
}

#[test]
fn sources() {
    let limited = json!({"limits": {"cpu": "1500m", "memory": "100Mi"}, "requests": {"cpu": "250m"}});
    let rows: &[(Value, Result<Option<&str>, &str>)] = &[
        (json!({"fieldRef": {"fieldPath": "metadata.name"}}), Ok(Some("p"))),
        (json!({"fieldRef": {"fieldPath": "metadata.uid"}}), Ok(Some("u-1"))),
        (json!({"fieldRef": {"fieldPath": "metadata.labels['app']"}}), Ok(Some("web"))),
        (json!({"fieldRef": {"fieldPath": "metadata.labels['none']"}}), Ok(Some(""))),
        (json!({"fieldRef": {"fieldPath": "metadata.annotations[\"note\"]"}}), Ok(Some("line1\nline2"))),
        (json!({"fieldRef": {"fieldPath": "spec.nodeName"}}), Ok(Some("node-1"))),
        (json!({"fieldRef": {"fieldPath": "spec.serviceAccountName"}}), Ok(Some("robot"))),
        (json!({"fieldRef": {"fieldPath": "status.podIP"}}), Ok(Some("10.1.0.5"))),
        (json!({"fieldRef": {"fieldPath": "status.podIPs"}}), Ok(Some("10.1.0.5,fd00::5"))),
        (json!({"fieldRef": {"fieldPath": "status.hostIP"}}), Ok(Some("192.0.2.1"))),
        (json!({"fieldRef": {"fieldPath": "spec.priority"}}), Err("unsupported field")),
        (json!({"resourceFieldRef": {"resource": "limits.cpu"}}), Ok(Some("2"))),
        (json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}), Ok(Some("1500"))),
        (json!({"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}), Ok(Some("250"))),
        (json!({"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}), Ok(Some("100"))),
        (json!({"resourceFieldRef": {"resource": "limits.memory"}}), Ok(Some("104857600"))),
        (json!({"resourceFieldRef": {"resource": "requests.memory"}}), Ok(Some("0"))),
        (json!({"resourceFieldRef": {"resource": "limits.gpu"}}), Err("unsupported container resource")),
        (json!({"resourceFieldRef": {"resource": "limits.cpu", "containerName": "no"}}), Err("not found")),
        (json!({"configMapKeyRef": {"name": "cm", "key": "k"}}), Ok(Some("v"))),
        (json!({"configMapKeyRef": {"name": "cm", "key": "no"}}), Err("couldn't find key no in ConfigMap n/cm")),
        (json!({"configMapKeyRef": {"name": "cm", "key": "no", "optional": true}}), Ok(None)),
        (json!({"configMapKeyRef": {"name": "none", "key": "k"}}), Err("configmap \"none\" not found")),
        (json!({"configMapKeyRef": {"name": "none", "key": "k", "optional": true}}), Ok(None)),
        (json!({"secretKeyRef": {"name": "s", "key": "pw"}}), Ok(Some("\u{fffd}\u{1}"))),
        (json!({"secretKeyRef": {"name": "none", "key": "pw"}}), Err("secret \"none\" not found")),
    ];
    for (source, expected) in rows {
        let container = json!({"name": "c", "resources": limited, "env": [{"name": "V", "valueFrom": source}]});
        match (run(container), expected) {
            (Ok(list), Ok(value)) => {
                let expected: Vec<(String, String)> = value.iter().map(|v| ("V".to_owned(), (*v).to_owned())).collect();
                assert_eq!(list, expected, "{source}");
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{source}: {error}"),
            (found, expected) => panic!("{source}: {found:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn a_container_without_limits_sees_the_nodes() {
    let env = json!([{"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                     {"name": "M", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Gi"}}}]);
    let list = run(json!({"name": "c", "env": env})).expect("an environment");
    assert_eq!(list, [("C".to_owned(), "2".to_owned()), ("M".to_owned(), "4".to_owned())]);
}

#[expect(clippy::needless_pass_by_value, reason = "json! values read better by value")]
fn service(namespace: &str, name: &str, spec: Value) -> Arc<Service> {
    let object = json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec});
    Arc::new(serde_json::from_value(object).expect("a service"))
}

#[test]
fn services_become_variables() {
    let services = vec![
        service("default", "kubernetes", json!({"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]})),
        service("n", "my-db", json!({"clusterIP": "10.96.0.2", "ports": [{"port": 53, "protocol": "UDP"}]})),
        service("n", "headless", json!({"clusterIP": "None", "ports": [{"port": 1}]})),
        service("other", "hidden", json!({"clusterIP": "10.96.0.3", "ports": [{"port": 1}]})),
    ];
    let mut pod = pod(json!({"name": "c"}));
    let only_master = service_variables(&pod, &services);
    assert_eq!(only_master.len(), 8, "{only_master:?}");
    assert_eq!(only_master.get("KUBERNETES_SERVICE_HOST").map(String::as_str), Some("10.96.0.1"));
    assert_eq!(only_master.get("KUBERNETES_SERVICE_PORT_HTTPS").map(String::as_str), Some("443"));
    assert_eq!(only_master.get("KUBERNETES_PORT_443_TCP").map(String::as_str), Some("tcp://10.96.0.1:443"));
    pod.spec.as_mut().expect("spec").enable_service_links = Some(true);
    let linked = service_variables(&pod, &services);
    assert_eq!(linked.get("MY_DB_PORT").map(String::as_str), Some("udp://10.96.0.2:53"));
    assert_eq!(linked.get("MY_DB_PORT_53_UDP_ADDR").map(String::as_str), Some("10.96.0.2"));
    assert!(!linked.keys().any(|name| name.starts_with("HEADLESS") || name.starts_with("HIDDEN")));
}
