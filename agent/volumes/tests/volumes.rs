//! Volumes on the real kernel (root needed: tmpfs mounts, ownership).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use berth_volumes::{
    Change, Facts, Kind, NoCluster, ObjectError, Objects, Token, TokenOwner, VolumeError, is_in_memory, leftovers,
    maintain, prepare, teardown,
};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use k8s_openapi::api::node::v1::RuntimeClass;
use serde_json::json;
use tokio::sync::broadcast;

/// A cluster in memory.
#[derive(Debug)]
struct Cluster {
    config_maps: Mutex<BTreeMap<String, BTreeMap<String, String>>>,
    secrets: Mutex<BTreeMap<String, BTreeMap<String, String>>>,
    tokens: AtomicUsize,
    token_life: Duration,
    away: Mutex<bool>,
    changes: broadcast::Sender<Change>,
}

impl Cluster {
    fn new() -> Self {
        Self {
            config_maps: Mutex::default(),
            secrets: Mutex::default(),
            tokens: AtomicUsize::new(0),
            token_life: Duration::from_secs(3600),
            away: Mutex::new(false),
            changes: broadcast::Sender::new(16),
        }
    }

    fn set(&self, kind: Kind, name: &str, entries: &[(&str, &str)]) {
        let entries = entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let map = if kind == Kind::Secret { &self.secrets } else { &self.config_maps };
        map.lock().expect("lock").insert(name.to_owned(), entries);
        let _ = self.changes.send(Change { kind, namespace: "default".to_owned(), name: name.to_owned() });
    }

    fn get(&self, kind: Kind, name: &str) -> Result<BTreeMap<String, String>, ObjectError> {
        if *self.away.lock().expect("lock") {
            return Err(ObjectError::Unavailable {
                kind,
                namespace: "default".to_owned(),
                name: name.to_owned(),
                reason: "connection refused".to_owned(),
            });
        }
        let map = if kind == Kind::Secret { &self.secrets } else { &self.config_maps };
        map.lock().expect("lock").get(name).cloned().ok_or_else(|| ObjectError::NotFound {
            kind,
            namespace: "default".to_owned(),
            name: name.to_owned(),
        })
    }
}

#[async_trait]
impl Objects for Cluster {
    async fn config_map(&self, _: &str, name: &str) -> Result<Arc<ConfigMap>, ObjectError> {
        let data = Some(self.get(Kind::ConfigMap, name)?);
        Ok(Arc::new(ConfigMap { data, ..Default::default() }))
    }

    async fn secret(&self, _: &str, name: &str) -> Result<Arc<Secret>, ObjectError> {
        let data = self.get(Kind::Secret, name)?.into_iter().map(|(k, v)| (k, ByteString(v.into_bytes()))).collect();
        Ok(Arc::new(Secret { data: Some(data), ..Default::default() }))
    }

    async fn service_account_token(&self, owner: &TokenOwner, audience: &str, _: i64) -> Result<Token, ObjectError> {
        if *self.away.lock().expect("lock") {
            self.get(Kind::ServiceAccountToken, &owner.service_account)?;
        }
        let number = self.tokens.fetch_add(1, Ordering::SeqCst);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let claims = json!({"iat": now, "exp": now + self.token_life.as_secs(), "n": number, "aud": audience});
        let value = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()));
        Ok(Token { value, expires_at: SystemTime::now() + self.token_life })
    }

    async fn services(&self, _: &str) -> Result<Vec<Arc<Service>>, ObjectError> {
        Ok(Vec::new())
    }

    async fn runtime_class(&self, name: &str) -> Result<Arc<RuntimeClass>, ObjectError> {
        let kind = Kind::RuntimeClass;
        Err(ObjectError::NotFound { kind, namespace: String::new(), name: name.to_owned() })
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }
}

fn pod(uid: &str, volumes: &serde_json::Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": uid, "labels": {"app": "web"}},
        "spec": {"serviceAccountName": "robot", "containers": [{"name": "c", "resources": {"limits": {"memory": "16Mi"}}}],
            "volumes": volumes},
    }))
    .expect("a pod")
}

/// What admission adds to every pod.
fn api_access() -> serde_json::Value {
    json!({"name": "kube-api-access-x", "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}})
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("stat").mode() & 0o7777
}

fn mounts_below(path: &Path) -> usize {
    let path = path.to_string_lossy();
    fs::read_to_string("/proc/self/mountinfo").expect("mounts").lines().filter(|line| line.contains(&*path)).count()
}

#[tokio::test]
async fn a_pods_volumes_are_made_found_again_and_removed() {
    let root = tempfile::tempdir().expect("root");
    let cluster = Cluster::new();
    cluster.set(Kind::ConfigMap, "kube-root-ca.crt", &[("ca.crt", "CERT"), ("other", "no")]);
    cluster.set(Kind::ConfigMap, "settings", &[("a", "1"), ("b", "2")]);
    cluster.set(Kind::Secret, "keys", &[("id", "hush")]);
    let pod = pod(
        "u-1",
        &json!([
            api_access(),
            {"name": "scratch", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "settings", "configMap": {"name": "settings", "defaultMode": 0o600, "items": [
                {"key": "a", "path": "deep/a"}, {"key": "b", "path": "b", "mode": 0o444}]}},
            {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o400}},
            {"name": "absent", "secret": {"secretName": "absent", "optional": true}},
            {"name": "self", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"name": "host", "hostPath": {"path": "/proc", "type": "Directory"}},
        ]),
    );
    let facts = Facts::default();
    let paths = prepare(&pod, &cluster, root.path(), &facts).await.expect("prepared");

    let at = |name: &str| paths[name].path.clone();
    assert_eq!(at("kube-api-access-x"), root.path().join("pods/u-1/volumes/kubernetes.io~projected/kube-api-access-x"));
    assert_eq!(fs::read_to_string(at("kube-api-access-x").join("ca.crt")).expect("read"), "CERT");
    assert_eq!(fs::read_to_string(at("kube-api-access-x").join("namespace")).expect("read"), "default");
    assert!(!at("kube-api-access-x").join("other").exists());
    let token = fs::read_to_string(at("kube-api-access-x").join("token")).expect("read");
    assert_eq!(fs::read_to_string(at("settings").join("deep/a")).expect("read"), "1");
    assert_eq!((mode(&at("settings").join("deep/a")), mode(&at("settings").join("b"))), (0o600, 0o444));
    assert_eq!(fs::read_to_string(at("keys").join("id")).expect("read"), "hush");
    assert_eq!(mode(&at("keys").join("id")), 0o400);
    assert_eq!(fs::read_to_string(at("self").join("labels")).expect("read"), "app=\"web\"");
    assert_eq!(mode(&at("scratch")), 0o777);
    assert_eq!(at("host"), Path::new("/proc"));
    assert!(at("absent").is_dir());
    let read_only: Vec<_> = paths.iter().filter(|(_, path)| path.read_only).map(|(name, _)| name.as_str()).collect();
    assert_eq!(read_only, ["absent", "keys", "kube-api-access-x", "self", "settings"]);
    let in_memory: Vec<_> = paths.keys().filter(|name| is_in_memory(&at(name))).map(String::as_str).collect();
    assert_eq!(in_memory, ["absent", "host", "keys", "kube-api-access-x", "memory", "self"]);
    assert!(fs::write(at("memory").join("big"), vec![0; 2 << 20]).is_err(), "sizeLimit holds");

    // Again, as after a crash: the same paths, no second mount, the same token.
    fs::write(at("scratch").join("mine"), "kept").expect("write");
    let before = mounts_below(root.path());
    assert_eq!(before, 5);
    assert_eq!(prepare(&pod, &cluster, root.path(), &facts).await.expect("again"), paths);
    assert_eq!(mounts_below(root.path()), before);
    assert_eq!(fs::read_to_string(at("kube-api-access-x").join("token")).expect("read"), token);
    assert_eq!(fs::read_to_string(at("scratch").join("mine")).expect("read"), "kept");
    assert_eq!(leftovers(root.path()).expect("list"), ["u-1"]);

    teardown("u-1", root.path()).expect("torn down");
    assert_eq!(mounts_below(root.path()), 0);
    assert!(!root.path().join("pods/u-1").exists());
    teardown("u-1", root.path()).expect("and again");
    assert!(Path::new("/proc/self").exists());
}

#[tokio::test]
async fn teardown_takes_off_what_nobody_remembers_and_reports_what_stays() {
    let root = tempfile::tempdir().expect("root");
    let pod = pod("u-2", &json!([{"name": "m", "emptyDir": {"medium": "Memory"}}]));
    let paths = prepare(&pod, &NoCluster::new(), root.path(), &Facts::default()).await.expect("prepared");
    // A second mount on top, and a file that is held open.
    let path = &paths["m"].path;
    rustix::mount::mount("tmpfs", path, "tmpfs", rustix::mount::MountFlags::empty(), None).expect("a second mount");
    let held = fs::File::create(path.join("held")).expect("held");
    teardown("u-2", root.path()).expect("torn down");
    drop(held);
    assert_eq!(mounts_below(root.path()), 0);
    assert!(leftovers(root.path()).expect("list").is_empty());
}

#[tokio::test]
async fn what_is_missing_is_waited_for_and_what_is_unknown_is_refused() {
    let root = tempfile::tempdir().expect("root");
    let cluster = Cluster::new();
    cluster.set(Kind::Secret, "keys", &[("id", "hush")]);
    let facts = Facts::default();
    let cases = [
        (json!({"name": "v", "configMap": {"name": "nope"}}), true, "configmap \"nope\" not found"),
        (
            json!({"name": "v", "secret": {"secretName": "keys", "items": [{"key": "no", "path": "x"}]}}),
            true,
            "references non-existent secret key: no",
        ),
        (json!({"name": "v", "hostPath": {"path": "/nope", "type": "Directory"}}), true, "/nope is not a directory"),
        (
            json!({"name": "v", "nfs": {"server": "s", "path": "/"}}),
            false,
            "spec.volumes[0].nfs: Berth does not implement",
        ),
        (
            json!({"name": "v", "projected": {"sources": [{"clusterTrustBundle": {"path": "x"}}]}}),
            false,
            "spec.volumes[0].projected.sources[0].clusterTrustBundle: Berth does not implement",
        ),
        (json!({"name": "../v", "emptyDir": {}}), false, "spec.volumes[0].name: must be a DNS label"),
        (json!({"name": "v", "emptyDir": {"medium": "HugePages"}}), false, "spec.volumes[0].emptyDir.medium"),
        (json!({"name": "v", "emptyDir": {"sizeLimit": "lots"}}), false, "spec.volumes[0].emptyDir.sizeLimit"),
        (json!({"name": "v", "hostPath": {"path": "/a/../b"}}), false, "spec.volumes[0].hostPath.path"),
        (json!({"name": "v"}), false, "names no source"),
        (
            json!({"name": "v", "secret": {"secretName": "keys", "items": [{"key": "id", "path": "../x"}]}}),
            false,
            "must not contain '..'",
        ),
    ];
    for (volume, waiting, says) in cases {
        let error = prepare(&pod("u-3", &json!([volume])), &cluster, root.path(), &facts).await.expect_err(says);
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(error.is_waiting(), waiting, "{error}");
    }
    let twice = json!([{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]);
    let error = prepare(&pod("u-3", &twice), &cluster, root.path(), &facts).await.expect_err("twice");
    assert!(matches!(error, VolumeError::Invalid { index: 1, .. }), "{error}");
    let error = prepare(&pod("../u", &json!([])), &cluster, root.path(), &facts).await.expect_err("a bad UID");
    assert!(matches!(error, VolumeError::NoIdentity { .. }), "{error}");

    let error = prepare(&pod("u-3", &json!([api_access()])), &NoCluster::new(), root.path(), &facts).await;
    assert!(error.expect_err("no cluster").to_string().contains("there is no cluster"));
    teardown("u-3", root.path()).expect("torn down");
}

#[tokio::test]
async fn fs_group_owns_what_the_pod_writes_and_may_read_what_it_is_shown() {
    let root = tempfile::tempdir().expect("root");
    let cluster = Cluster::new();
    cluster.set(Kind::Secret, "keys", &[("id", "hush")]);
    cluster.set(Kind::ConfigMap, "kube-root-ca.crt", &[("ca.crt", "CERT")]);
    let mut pod = pod(
        "u-4",
        &json!([{"name": "e", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "keys", "defaultMode": 0o400}}, api_access()]),
    );
    let context = json!({"fsGroup": 4321, "runAsUser": 1000});
    pod.spec.as_mut().expect("spec").security_context = serde_json::from_value(context).expect("context");
    let paths = prepare(&pod, &cluster, root.path(), &Facts::default()).await.expect("prepared");
    let metadata = fs::metadata(&paths["e"].path).expect("stat");
    assert_eq!((metadata.gid(), metadata.mode() & 0o7777), (4321, 0o2777));
    let metadata = fs::metadata(paths["s"].path.join("id")).expect("stat");
    assert_eq!((metadata.gid(), metadata.mode() & 0o7777), (4321, 0o440));
    let metadata = fs::metadata(paths["kube-api-access-x"].path.join("token")).expect("stat");
    assert_eq!((metadata.gid(), metadata.mode() & 0o7777), (4321, 0o640));

    // Without the group, the one user that every container runs as owns the token.
    let context = json!({"runAsUser": 1000});
    pod.spec.as_mut().expect("spec").security_context = serde_json::from_value(context).expect("context");
    pod.metadata.uid = Some("u-5".to_owned());
    let paths = prepare(&pod, &cluster, root.path(), &Facts::default()).await.expect("prepared");
    let metadata = fs::metadata(paths["kube-api-access-x"].path.join("token")).expect("stat");
    assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (1000, 0o600));
    for uid in ["u-4", "u-5"] {
        teardown(uid, root.path()).expect("torn down");
    }
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(60), async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{what} did not happen within a minute"));
}

#[tokio::test]
async fn changes_are_shown_tokens_are_renewed_and_an_absent_server_changes_nothing() {
    let root = tempfile::tempdir().expect("root");
    let mut cluster = Cluster::new();
    cluster.token_life = Duration::from_secs(4);
    cluster.set(Kind::ConfigMap, "kube-root-ca.crt", &[("ca.crt", "ONE")]);
    let cluster = Arc::new(cluster);
    let pod = Arc::new(pod("u-6", &json!([api_access()])));
    let paths = prepare(&pod, &*cluster, root.path(), &Facts::default()).await.expect("prepared");
    let folder = paths["kube-api-access-x"].path.clone();
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect("always readable");
    let first = read("token");

    let task = tokio::spawn({
        let (pod, cluster, root) = (pod.clone(), cluster.clone(), root.path().to_path_buf());
        async move { maintain(&pod, &*cluster, &root, &Facts::default()).await }
    });
    eventually("the renewal", || read("token") != first).await;
    cluster.set(Kind::ConfigMap, "kube-root-ca.crt", &[("ca.crt", "TWO")]);
    eventually("the update", || read("ca.crt") == "TWO").await;

    *cluster.away.lock().expect("lock") = true;
    let asked = read("token");
    cluster.set(Kind::ConfigMap, "kube-root-ca.crt", &[("ca.crt", "THREE")]);
    let again =
        prepare(&pod, &*cluster, root.path(), &Facts::default()).await.expect("a container may restart meanwhile");
    assert_eq!(again, paths);
    assert_eq!((read("ca.crt"), read("token")), ("TWO".to_owned(), asked));

    task.abort();
    assert!(task.await.expect_err("aborted").is_cancelled());
    teardown("u-6", root.path()).expect("torn down");
}

fn sub<'a>(container: &'a str, path: &'a str) -> berth_volumes::SubPath<'a> {
    berth_volumes::SubPath { uid: "uid-1", volume: "data", container, index: 0, path }
}

#[test]
fn a_part_of_a_volume_never_leads_out_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (root, volume) = (folder.path().join("root"), folder.path().join("volume"));
    fs::create_dir_all(volume.join("in")).expect("a volume");
    fs::write(volume.join("in/file"), "inside").expect("a file");
    fs::write(folder.path().join("secret"), "outside").expect("a secret");
    for (name, target) in [("up", "../secret"), ("away", "/etc/passwd"), ("folder", "/in"), ("file", "in/file")] {
        std::os::unix::fs::symlink(target, volume.join(name)).expect("a link");
    }
    let read = |container, path| {
        let at =
            berth_volumes::bind_sub_path(&root, &volume, sub(container, path)).map_err(|error| error.to_string())?;
        if at.is_dir() { Ok(String::new()) } else { fs::read_to_string(at).map_err(|error| error.to_string()) }
    };
    assert_eq!(read("a", "in/file"), Ok("inside".to_owned()));
    assert_eq!(read("b", "file"), Ok("inside".to_owned()));
    // Links are followed with the volume as their root.
    assert_eq!(read("c", "folder/file"), Ok("inside".to_owned()));
    for path in ["up", "away"] {
        assert_ne!(read("d", path).unwrap_or_default(), "outside");
    }
    assert!(!volume.join("etc").join("passwd").is_file());
    for path in ["../secret", "/etc/passwd", "in/../../secret"] {
        assert!(read("e", path).expect_err("climbs").contains("without '..'"), "{path}");
    }
    // What is not there becomes a folder, with the volume's mode.
    fs::set_permissions(&volume, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("a mode");
    let at = berth_volumes::bind_sub_path(&root, &volume, sub("f", "new/deep")).expect("a folder");
    fs::write(at.join("x"), "").expect("written through");
    assert!(volume.join("new/deep/x").is_file());
    assert_eq!(fs::metadata(&at).expect("facts").mode() & 0o777, 0o777);
    // The next instance of the container takes the same place.
    assert_eq!(read("a", "in/file"), Ok("inside".to_owned()));
    teardown("uid-1", &root).expect("a teardown");
    assert!(!root.join("pods/uid-1").exists());
    assert!(volume.join("in/file").is_file() && volume.join("new/deep/x").is_file(), "the volume itself stays");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(&*folder.path().to_string_lossy()), "a mount is left");
}
