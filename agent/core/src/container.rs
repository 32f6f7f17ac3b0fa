//! A container as the CRI's ContainerConfig.
//!
//! Source: `kubernetes@v1.37.2:pkg/kubelet/kuberuntime/kuberuntime_container.go#generateContainerConfig`,
//! `pkg/kubelet/kubelet_pods.go#makeMounts`.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use berth_cri_proto::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::env::Variable;
use crate::expansion::expand;
use crate::resources::{self, Policy};
use crate::security::{self, ImageUser};
use crate::users::Users;
use crate::{names, sandbox};

const ETC_HOSTS: &str = "/etc/hosts";

/// What a container is made from, beside its declaration.
#[derive(Debug, Clone)]
pub struct Parts<'a> {
    /// How often its name was restarted before.
    pub attempt: u32,
    /// Seconds that its failure makes its successor wait.
    pub backoff: i64,
    /// The runtime's reference to its image.
    pub image_ref: &'a str,
    /// Whom the image runs as.
    pub image_user: &'a ImageUser,
    /// Its environment.
    pub env: Vec<Variable>,
    /// By volume name: where it lies on the host, and whether it is read-only.
    pub volumes: &'a BTreeMap<String, (PathBuf, bool)>,
    /// By index in `volumeMounts`: where the part that `subPath` names lies on the host.
    pub sub_paths: &'a BTreeMap<usize, PathBuf>,
    /// The pod's `/etc/hosts` on the host.
    pub hosts_file: Option<&'a Path>,
    /// The file for its termination message on the host.
    pub termination_file: &'a Path,
    /// Resources.
    pub policy: &'a Policy,
    /// Whether containers without a seccomp profile get RuntimeDefault.
    pub seccomp_default: bool,
    /// The pod's own users, who own what it mounts as they see it.
    pub users: Option<Users>,
}

/// The configuration of `container`. `Err` says, for people, which field can't be met.
pub fn config(pod: &Pod, container: &Container, parts: &Parts<'_>) -> Result<cri::ContainerConfig, String> {
    let security = security::of_container(pod, container, parts.image_user, parts.seccomp_default, parts.users)?;
    let mounts = mounts(container, parts)?;
    let known: BTreeMap<&str, &str> =
        parts.env.iter().filter_map(|(name, value)| Some((name.as_str(), std::str::from_utf8(value).ok()?))).collect();
    let expanded = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|text| expand(text, |name| known.get(name).copied())).collect()
    };
    let mut limits = sandbox::to_cri(&resources::container_limits(container, parts.policy));
    limits.oom_score_adj = resources::oom_score_adj(pod, container, parts.policy.memory_capacity);
    let image = container.image.clone().unwrap_or_default();
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: container.name.clone(), attempt: parts.attempt }),
        image: Some(cri::ImageSpec {
            image: parts.image_ref.to_owned(),
            user_specified_image: image,
            ..Default::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: parts.env.iter().map(|(key, value)| cri::KeyValue { key: key.clone(), value: value.clone() }).collect(),
        mounts,
        labels: labels(pod, container),
        annotations: annotations(pod, container, parts),
        log_path: names::log_file(&container.name, parts.attempt),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(cri::LinuxContainerConfig { resources: Some(limits), security_context: Some(security) }),
        stop_signal: stop_signal(container)?.into(),
        ..Default::default()
    })
}

/// What `lifecycle.stopSignal` asks for; the runtime's or the image's own otherwise.
fn stop_signal(container: &Container) -> Result<cri::Signal, String> {
    let asked = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.as_deref());
    let Some(name) = asked.filter(|name| !name.is_empty()) else { return Ok(cri::Signal::RuntimeDefault) };
    cri::Signal::from_str_name(&format!("SIGNAL_{name}"))
        .ok_or_else(|| format!("lifecycle.stopSignal: {name:?} is no signal that CRI knows; write it as SIGTERM"))
}

fn labels(pod: &Pod, container: &Container) -> HashMap<String, String> {
    let mut out: HashMap<String, String> = sandbox::identity(pod).into_iter().collect();
    out.insert(names::CONTAINER_NAME.to_owned(), container.name.clone());
    out
}

fn annotations(pod: &Pod, container: &Container, parts: &Parts<'_>) -> HashMap<String, String> {
    let grace = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let mut out: HashMap<String, String> = [
        (names::RESTART_COUNT.to_owned(), parts.attempt.to_string()),
        (names::HASH.to_owned(), format!("{:x}", hash(container))),
        (names::TERMINATION_MESSAGE_PATH.to_owned(), text(&container.termination_message_path)),
        (names::TERMINATION_MESSAGE_POLICY.to_owned(), text(&container.termination_message_policy)),
        (names::BACKOFF.to_owned(), parts.backoff.to_string()),
    ]
    .into();
    if let Some(grace) = grace {
        out.insert(names::TERMINATION_GRACE_PERIOD.to_owned(), grace.to_string());
    }
    if container.ports.as_ref().is_some_and(|ports| !ports.is_empty())
        && let Ok(json) = serde_json::to_string(&container.ports)
    {
        out.insert("io.kubernetes.container.ports".to_owned(), json);
    }
    out
}

/// The kubelet's hash of a container, so that a node can change hands in either direction without a restart: FNV-1a of
/// its name and image, as JSON, as Go's spew prints those bytes.
///
/// Source: `kubernetes@v1.37.2:pkg/kubelet/container/helpers.go#HashContainer`, `pkg/util/hash`.
fn hash(container: &Container) -> u32 {
    let image = container.image.as_deref().unwrap_or_default();
    let json = serde_json::json!({"image": image, "name": container.name}).to_string();
    let bytes: Vec<String> = json.bytes().map(|byte| byte.to_string()).collect();
    let printed = format!("([]uint8)[{}]", bytes.join(" "));
    printed.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The parts of volumes that a container mounts: index in `volumeMounts`, the volume's name, the path below its root.
/// `Err` says for people which variable a `subPathExpr` misses.
pub fn sub_paths(container: &Container, env: &[Variable]) -> Result<Vec<(usize, String, String)>, String> {
    let mut out = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let declared = |field: &Option<String>| field.clone().filter(|path| !path.is_empty());
        if let Some(path) = declared(&mount.sub_path) {
            out.push((index, mount.name.clone(), path));
        } else if let Some(expression) = declared(&mount.sub_path_expr) {
            let missing = RefCell::new(None);
            let path = expand(&expression, |name| {
                let value =
                    env.iter().find(|(known, _)| known == name).and_then(|(_, value)| str::from_utf8(value).ok());
                if value.is_none() {
                    missing.borrow_mut().get_or_insert_with(|| name.to_owned());
                }
                value
            });
            if let Some(name) = missing.into_inner() {
                return Err(format!(
                    "failed to expand subPathExpr of volumeMount {:?}: missing value for {name:?}",
                    mount.name
                ));
            }
            out.push((index, mount.name.clone(), path));
        }
    }
    Ok(out)
}

fn mounts(container: &Container, parts: &Parts<'_>) -> Result<Vec<cri::Mount>, String> {
    let mut out = Vec::new();
    let mut own_hosts = false;
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        own_hosts |= mount.mount_path == ETC_HOSTS;
        let (path, read_only) = parts.volumes.get(&mount.name).ok_or_else(|| {
            format!("cannot find volume {:?} to mount into container {:?}", mount.name, container.name)
        })?;
        let path = parts.sub_paths.get(&index).unwrap_or(path);
        out.push(bind(path, &absolute(&mount.mount_path), *read_only || mount.read_only == Some(true)));
    }
    if let Some(file) = parts.hosts_file.filter(|_| !own_hosts) {
        out.push(bind(file, ETC_HOSTS, false));
    }
    if let Some(path) = container.termination_message_path.as_deref().filter(|path| !path.is_empty()) {
        out.push(bind(parts.termination_file, &absolute(path), false));
    }
    let mapping: Vec<_> = parts.users.map(Users::mapping).into_iter().collect();
    for mount in &mut out {
        mount.uid_mappings.clone_from(&mapping);
        mount.gid_mappings.clone_from(&mapping);
    }
    Ok(out)
}

fn bind(host: &Path, container: &str, readonly: bool) -> cri::Mount {
    cri::Mount {
        container_path: container.to_owned(),
        host_path: host.to_string_lossy().into_owned(),
        readonly,
        ..Default::default()
    }
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "json! values read better by value")]
    fn run(
        container: serde_json::Value,
        volumes: &BTreeMap<String, (PathBuf, bool)>,
    ) -> Result<cri::ContainerConfig, String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u1"},
            "spec": {"terminationGracePeriodSeconds": 7, "containers": [container]}}))
        .expect("a pod");
        let policy = Policy { memory_capacity: 1 << 30, ..Policy::default() };
        let parts = Parts {
            attempt: 2,
            backoff: 20,
            image_ref: "sha256:abc",
            image_user: &ImageUser::default(),
            env: vec![("A".to_owned(), b"1".to_vec())],
            volumes,
            sub_paths: &[(9, PathBuf::from("/host/part"))].into(),
            hosts_file: Some(Path::new("/pods/u1/etc-hosts")),
            termination_file: Path::new("/pods/u1/containers/c/2"),
            policy: &policy,
            seccomp_default: false,
            users: None,
        };
        config(&pod, &pod.spec.as_ref().expect("spec").containers[0], &parts)
    }

    #[test]
    fn a_container_becomes_a_config() {
        let container = json!({"name": "c", "image": "web:1", "command": ["sh", "-c"], "args": ["echo $(A) $(B) $$(A)"],
            "terminationMessagePath": "/dev/termination-log", "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m", "memory": "64Mi"}},
            "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "s", "mountPath": "s"}]});
        let volumes = [("v".to_owned(), ("/host/v".into(), false)), ("s".to_owned(), ("/host/s".into(), true))].into();
        let config = run(container, &volumes).expect("a config");
        assert_eq!(config.args, ["echo 1 $(B) $(A)"]);
        assert_eq!(config.log_path, "c/2.log");
        let image = config.image.expect("image");
        assert_eq!((image.image.as_str(), image.user_specified_image.as_str()), ("sha256:abc", "web:1"));
        let mounts: Vec<(&str, &str, bool)> =
            config.mounts.iter().map(|m| (m.host_path.as_str(), m.container_path.as_str(), m.readonly)).collect();
        let expected = [
            ("/host/v", "/v", false),
            ("/host/s", "/s", true),
            ("/pods/u1/etc-hosts", "/etc/hosts", false),
            ("/pods/u1/containers/c/2", "/dev/termination-log", false),
        ];
        assert_eq!(mounts, expected);
        assert_eq!(config.annotations.get(names::RESTART_COUNT).map(String::as_str), Some("2"));
        assert_eq!(config.annotations.get(names::BACKOFF).map(String::as_str), Some("20"));
        let limits = config.linux.expect("linux").resources.expect("resources");
        assert_eq!((limits.cpu_shares, limits.cpu_quota, limits.cpu_period), (102, 20_000, 100_000));
        assert_eq!((limits.memory_limit_in_bytes, limits.oom_score_adj), (64 << 20, 938));
    }

    #[test]
    fn the_stop_signal_goes_to_the_runtime() {
        let signal = |name: &str| run(json!({"name": "c", "lifecycle": {"stopSignal": name}}), &BTreeMap::new());
        assert_eq!(signal("SIGUSR1").expect("a config").stop_signal(), cri::Signal::Sigusr1);
        assert_eq!(signal("").expect("a config").stop_signal(), cri::Signal::RuntimeDefault);
        assert!(signal("SIGWHAT").expect_err("no signal").contains("lifecycle.stopSignal"));
    }

    #[test]
    fn parts_of_volumes_are_named_by_path_or_by_expression() {
        let container: Container = serde_json::from_value(json!({"name": "c", "volumeMounts": [
            {"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/a", "subPath": "a/b"},
            {"name": "w", "mountPath": "/b", "subPathExpr": "$(POD)/$$(x)"}]}))
        .expect("a container");
        let env = [("POD".to_owned(), b"web".to_vec())];
        let expected = [(1, "v".to_owned(), "a/b".to_owned()), (2, "w".to_owned(), "web/$(x)".to_owned())];
        assert_eq!(sub_paths(&container, &env).expect("paths"), expected);
        assert!(sub_paths(&container, &[]).expect_err("no POD").contains("missing value for \"POD\""));
        let mounted = json!({"name": "c", "volumeMounts": (0..10).map(|n| json!({"name": "v", "mountPath": format!("/{n}"), "subPath": "s"})).collect::<Vec<_>>()});
        let volumes = [("v".to_owned(), ("/host/v".into(), false))].into();
        let config = run(mounted, &volumes).expect("a config");
        assert_eq!(config.mounts[9].host_path, "/host/part");
    }

    #[test]
    fn hashes_are_the_kubelets() {
        for (name, image, expected) in [("web", "web:1", 0x1a9f_07a2), ("c", "registry.k8s.io/pause:3.10", 0xc66c_fb5f)]
        {
            let container = Container { name: name.into(), image: Some(image.into()), ..Container::default() };
            assert_eq!(hash(&container), expected, "{name}");
        }
    }

    #[test]
    fn a_mount_over_etc_hosts_wins_and_a_missing_volume_is_said() {
        let over = json!({"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/etc/hosts"}]});
        let volumes = [("v".to_owned(), ("/host/v".into(), false))].into();
        assert_eq!(run(over.clone(), &volumes).expect("a config").mounts.len(), 1);
        let error = run(over, &BTreeMap::new()).expect_err("no volume");
        assert_eq!(error, "cannot find volume \"v\" to mount into container \"c\"");
    }
}
