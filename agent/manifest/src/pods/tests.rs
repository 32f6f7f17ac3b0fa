use super::*;

const POD: &str =
    "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  containers:\n  - name: c\n    image: hello\n";

fn read_one(text: &str) -> Pod {
    let mut manifests = read(Path::new("/m/web.yaml"), text, "Node-A").expect(text);
    assert_eq!(manifests.len(), 1);
    manifests.remove(0).pod
}

fn refused(text: &str) -> String {
    read(Path::new("web.yaml"), text, "n").expect_err(text).to_string()
}

#[test]
fn a_pod_gets_its_identity_and_its_defaults() {
    let pod = read_one(POD);
    assert_eq!(pod.metadata.name.as_deref(), Some("web-node-a"));
    assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
    let uid = pod.metadata.uid.clone().expect("a UID");
    assert_eq!(uid.len(), 32);
    assert_eq!(pod.metadata.annotations.as_ref().expect("annotations")[HASH_ANNOTATION], uid);
    let spec = pod.spec.as_ref().expect("spec");
    assert_eq!(spec.node_name.as_deref(), Some("Node-A"));
    assert_eq!(spec.restart_policy.as_deref(), Some("Always"));
    assert_eq!(spec.dns_policy.as_deref(), Some("ClusterFirst"));
    assert_eq!(spec.termination_grace_period_seconds, Some(30));
    assert_eq!(spec.containers[0].image_pull_policy.as_deref(), Some("Always"));
    assert_eq!(spec.containers[0].termination_message_path.as_deref(), Some("/dev/termination-log"));
    assert_eq!(spec.tolerations.as_ref().map(Vec::len), Some(1));

    assert_eq!(read_one(POD).metadata.uid.as_deref(), Some(uid.as_str()), "stable");
    let changed = read_one(&POD.replace("hello", "hello:2"));
    assert_ne!(changed.metadata.uid.as_deref(), Some(uid.as_str()));
    assert_eq!(changed.spec.expect("spec").containers[0].image_pull_policy.as_deref(), Some("IfNotPresent"));
    let elsewhere = read(Path::new("/m/other.yaml"), POD, "Node-A").expect("read").remove(0).pod;
    assert_ne!(elsewhere.metadata.uid.as_deref(), Some(uid.as_str()));
    assert_eq!(read_one(&POD.replace("name: web", "name: web\n  uid: given")).metadata.uid.as_deref(), Some("given"));
}

#[test]
fn a_name_in_other_letters_is_refused_wherever_their_bytes_fall() {
    for name in ["ä".repeat(40), format!("{}ä", "a".repeat(62)), format!("a.{}", "ä".repeat(40))] {
        let error = refused(&POD.replace("name: web", &format!("name: {name}")));
        assert!(error.contains("line 4: field metadata.name: must be lower-case"), "{error}");
    }
}

#[test]
fn lists_and_several_documents_hold_several_pods() {
    let item = POD.lines().map(|line| format!("  {line}\n")).collect::<String>().replacen("  ", "- ", 1);
    let text = format!("{POD}---\n{}---\napiVersion: v1\nkind: List\nitems:\n{item}", POD.replace("web", "two"));
    let manifests = read(Path::new("x"), &text, "n").expect("read");
    let names: Vec<_> = manifests.iter().filter_map(|m| m.pod.metadata.name.as_deref()).collect();
    assert_eq!(names, ["web-n", "two-n", "web-n"]);
    assert_eq!(manifests.iter().map(|m| m.line).collect::<Vec<_>>(), [4, 13, 25]);
}

#[test]
fn a_mistake_is_one_line_with_file_line_field_and_reason() {
    let cases = [
        ("a: [", "web.yaml: line 2: is not YAML"),
        ("", "web.yaml: holds no manifest"),
        ("just text", "web.yaml: line 1: is not a manifest"),
        ("kind: Pod", "web.yaml: line 1: field apiVersion: missing"),
        (
            "apiVersion: apps/v1\nkind: Deployment",
            "web.yaml: line 1: field apiVersion: \"apps/v1\" is not supported here",
        ),
        ("apiVersion: v1\nkind: Service", "web.yaml: line 2: field kind: \"Service\" can't run without a cluster"),
        ("apiVersion: v1\nkind: 3", "web.yaml: line 2: field kind: must be a string"),
    ];
    for (text, says) in cases {
        let error = refused(text);
        assert!(error.starts_with(says), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let edits = [
        ("name: web", "generateName: w", "line 4: field metadata.name: missing"),
        ("name: web", "name: Web", "line 4: field metadata.name: must be lower-case"),
        ("image: hello", "imagee: hello", "line 8: field spec.containers[0].imagee: unknown field"),
        ("image: hello", "image: ''", "line 8: field spec.containers[0].image: missing"),
        (
            "image: hello",
            "image: x\n    ports: [{containerPort: 70000}]",
            "field spec.containers[0].ports[0].containerPort: 70000",
        ),
        ("image: hello", "image: x\n    ports: [{containerPort: '80'}]", "invalid type: string \"80\", expected i32"),
        (
            "image: hello",
            "image: x\n  - name: c\n    image: z",
            "line 9: field spec.containers[1].name: \"c\" is used twice",
        ),
        ("image: hello", "image: x\n    volumeMounts: [{name: v, mountPath: /v}]", "the pod has no volume \"v\""),
        (
            "image: hello",
            "image: x\n  restartPolicy: Sometimes",
            "line 9: field spec.restartPolicy: \"Sometimes\" is none of",
        ),
        ("image: hello", "image: x\n  serviceAccountName: s", "static pods may not reference serviceaccounts"),
        (
            "image: hello",
            "image: x\n    envFrom: [{secretRef: {name: s}}]",
            "envFrom[0].secretRef: static pods may not",
        ),
        (
            "image: hello",
            "image: x\n  volumes: [{name: v, configMap: {name: s}}]",
            "volumes[0].configMap: static pods may not",
        ),
        ("image: hello", "image: x\n    image: z", "is not YAML: key \"image\" is already set on line 8"),
        (
            "containers:\n  - name: c\n    image: hello",
            "containers: []",
            "line 6: field spec.containers: at least one container is needed",
        ),
    ];
    for (from, to, says) in edits {
        let error = refused(&POD.replace(from, to));
        assert!(error.contains(says), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn several_unknown_fields_share_the_line() {
    let error = refused(&POD.replace("image: hello", "image: x\n    a: 1\n    b: 2"));
    assert!(error.ends_with("spec.containers[0].a: unknown field; so are spec.containers[0].b (line 10)"), "{error}");
}
