//! Security contexts as CRI takes them.
//!
//! Sources: `kubernetes@v1.37.2:pkg/securitycontext/util.go`, `pkg/kubelet/kuberuntime/security_context.go`,
//! `pkg/kubelet/sysctl/safe_sysctls.go`.

use berth_cri_proto::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext};

use crate::names;
use crate::users::Users;

/// Sysctls that any pod may set: namespaced, and without effect on other pods.
const SAFE_SYSCTLS: [&str; 14] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_notsent_lowat",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The first sysctl of a pod that this node does not allow. `allowed` beside the safe ones; a trailing `*` matches a
/// prefix.
pub fn forbidden_sysctl<'a>(spec: &'a PodSpec, allowed: &[String]) -> Option<&'a str> {
    let context = spec.security_context.as_ref()?;
    context.sysctls.iter().flatten().map(|sysctl| sysctl.name.as_str()).find(|name| {
        let name = name.replace('/', ".");
        let listed = allowed.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => *pattern == name,
        });
        !SAFE_SYSCTLS.contains(&name.as_str()) && !listed
    })
}

/// Which of the host's namespaces a pod shares; `users` are its own, where it has such.
pub fn namespaces(spec: &PodSpec, users: Option<Users>) -> cri::NamespaceOption {
    let node_if = |shared: Option<bool>, own: cri::NamespaceMode| {
        i32::from(if shared == Some(true) { cri::NamespaceMode::Node } else { own })
    };
    cri::NamespaceOption {
        network: node_if(spec.host_network, cri::NamespaceMode::Pod),
        ipc: node_if(spec.host_ipc, cri::NamespaceMode::Pod),
        pid: match (spec.host_pid, spec.share_process_namespace) {
            (Some(true), _) => cri::NamespaceMode::Node.into(),
            (_, Some(true)) => cri::NamespaceMode::Pod.into(),
            _ => cri::NamespaceMode::Container.into(),
        },
        target_id: String::new(),
        userns_options: users.map(Users::to_cri),
    }
}

/// The seccomp profile that holds for a container (or, without one, for the pod). Localhost profiles are refused by the
/// table of fields and never get here.
pub fn seccomp(pod: Option<&PodSecurityContext>, own: Option<&SecurityContext>, default: bool) -> cri::SecurityProfile {
    let declared: Option<&SeccompProfile> =
        own.and_then(|c| c.seccomp_profile.as_ref()).or_else(|| pod.and_then(|c| c.seccomp_profile.as_ref()));
    let kind = match declared.map(|profile| profile.type_.as_str()) {
        Some("RuntimeDefault") => cri::security_profile::ProfileType::RuntimeDefault,
        None if default => cri::security_profile::ProfileType::RuntimeDefault,
        _ => cri::security_profile::ProfileType::Unconfined,
    };
    cri::SecurityProfile { profile_type: kind.into(), localhost_ref: String::new() }
}

/// The groups that every process of the pod gets: fsGroup, then the declared ones.
pub fn groups(context: Option<&PodSecurityContext>) -> Vec<i64> {
    let Some(context) = context else { return Vec::new() };
    context.fs_group.into_iter().chain(context.supplemental_groups.iter().flatten().copied()).collect()
}

fn int(value: i64) -> cri::Int64Value {
    cri::Int64Value { value }
}

/// The sandbox' own security context.
pub fn of_sandbox(spec: &PodSpec, users: Option<Users>) -> cri::LinuxSandboxSecurityContext {
    let context = spec.security_context.as_ref();
    let privileged = crate::qos::containers(spec)
        .any(|c| c.security_context.as_ref().and_then(|context| context.privileged) == Some(true));
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(spec, users)),
        run_as_user: context.and_then(|c| c.run_as_user).map(int),
        run_as_group: context.and_then(|c| c.run_as_group).map(int),
        supplemental_groups: groups(context),
        privileged,
        seccomp: Some(cri::SecurityProfile {
            profile_type: cri::security_profile::ProfileType::RuntimeDefault.into(),
            localhost_ref: String::new(),
        }),
        ..Default::default()
    }
}

/// Whom an image runs as, from the runtime's ImageStatus.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageUser {
    /// A number.
    pub uid: Option<i64>,
    /// Or a name.
    pub name: String,
}

/// A container's security context. `Err` says which field can't be met.
pub fn of_container(
    pod: &Pod,
    container: &Container,
    image_user: &ImageUser,
    seccomp_default: bool,
    users: Option<Users>,
) -> Result<cri::LinuxContainerSecurityContext, String> {
    let default_spec = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&default_spec);
    let shared = spec.security_context.as_ref();
    let own = container.security_context.as_ref();
    let user = own.and_then(|c| c.run_as_user).or_else(|| shared.and_then(|c| c.run_as_user));
    let group = own.and_then(|c| c.run_as_group).or_else(|| shared.and_then(|c| c.run_as_group));
    let non_root = own.and_then(|c| c.run_as_non_root).or_else(|| shared.and_then(|c| c.run_as_non_root));
    if non_root == Some(true) {
        check_non_root(pod, container, user, image_user)?;
    }
    let unmasked = own.and_then(|c| c.proc_mount.as_deref()) == Some("Unmasked");
    let paths = |list: &[&str]| {
        if unmasked { Vec::new() } else { list.iter().map(|path| (*path).to_owned()).collect() }
    };
    Ok(cri::LinuxContainerSecurityContext {
        capabilities: own.and_then(|c| c.capabilities.as_ref()).map(|capabilities| cri::Capability {
            add_capabilities: capabilities.add.clone().unwrap_or_default(),
            drop_capabilities: capabilities.drop.clone().unwrap_or_default(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged: own.and_then(|c| c.privileged) == Some(true),
        namespace_options: Some(namespaces(spec, users)),
        run_as_user: user.or(image_user.uid).map(int),
        run_as_group: group.map(int),
        run_as_username: if user.is_none() && image_user.uid.is_none() {
            image_user.name.clone()
        } else {
            String::new()
        },
        readonly_rootfs: own.and_then(|c| c.read_only_root_filesystem) == Some(true),
        supplemental_groups: groups(shared),
        no_new_privs: own.and_then(|c| c.allow_privilege_escalation) == Some(false),
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READONLY_PATHS),
        seccomp: Some(seccomp(shared, own, seccomp_default)),
        ..Default::default()
    })
}

fn check_non_root(pod: &Pod, container: &Container, user: Option<i64>, image: &ImageUser) -> Result<(), String> {
    let whom = format!("(pod: {:?}, container: {})", names::describe(pod), container.name);
    match (user, image.uid) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy {whom}")),
        (Some(_), _) => Ok(()),
        (None, None) if !image.name.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {whom}",
            image.name
        )),
        (None, Some(0)) => Err(format!("container has runAsNonRoot and image will run as root {whom}")),
        (None, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "json! values read better by value")]
    fn pod(spec: serde_json::Value) -> Pod {
        let metadata = serde_json::json!({"name": "p", "namespace": "n", "uid": "u"});
        serde_json::from_value(serde_json::json!({"metadata": metadata, "spec": spec})).expect("a pod")
    }

    fn of(spec: serde_json::Value, image: &ImageUser) -> Result<cri::LinuxContainerSecurityContext, String> {
        let pod = pod(spec);
        of_container(&pod, &pod.spec.as_ref().expect("spec").containers[0], image, false, None)
    }

    #[test]
    fn the_container_overrides_the_pod() {
        let spec = serde_json::json!({
            "securityContext": {"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4],
                                "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "securityContext": {"runAsUser": 5, "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true, "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
                "seccompProfile": {"type": "Unconfined"}}}]});
        let context = of(spec, &ImageUser::default()).expect("a context");
        assert_eq!(context.run_as_user, Some(int(5)));
        assert_eq!(context.run_as_group, Some(int(2)));
        assert_eq!(context.supplemental_groups, [3, 4]);
        assert!(context.no_new_privs && context.readonly_rootfs && !context.privileged);
        assert_eq!(context.seccomp.expect("seccomp").profile_type(), cri::security_profile::ProfileType::Unconfined);
        assert_eq!(context.capabilities.expect("capabilities").drop_capabilities, ["ALL"]);
        assert!(context.masked_paths.contains(&"/proc/kcore".to_owned()));
    }

    #[test]
    fn who_may_not_be_root() {
        let spec = |context: serde_json::Value| serde_json::json!({"securityContext": {"runAsNonRoot": true}, "containers": [{"name": "c", "securityContext": context}]});
        let root = ImageUser { uid: Some(0), name: String::new() };
        let named = ImageUser { uid: None, name: "web".into() };
        let nobody = ImageUser { uid: Some(65534), name: String::new() };
        let rows = [
            (serde_json::json!({}), &root, Some("image will run as root")),
            (serde_json::json!({}), &named, Some("non-numeric user (web)")),
            (serde_json::json!({}), &nobody, None),
            (serde_json::json!({"runAsUser": 0}), &nobody, Some("breaks non-root policy")),
            (serde_json::json!({"runAsUser": 7}), &root, None),
            (serde_json::json!({"runAsNonRoot": false}), &root, None),
        ];
        for (context, image, expected) in rows {
            match (of(spec(context.clone()), image), expected) {
                (Ok(_), None) => {}
                (Err(why), Some(part)) => assert!(why.contains(part), "{context}: {why}"),
                (found, expected) => panic!("{context}: {found:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn sysctls_are_safe_or_allowed() {
        let spec = |name: &str| {
            let spec =
                serde_json::json!({"containers": [], "securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
            serde_json::from_value::<PodSpec>(spec).expect("spec")
        };
        let allowed = ["kernel.msg*".to_owned(), "net.core.somaxconn".to_owned()];
        let rows = [
            ("net.ipv4.tcp_syncookies", None),
            ("net/ipv4/tcp_syncookies", None),
            ("kernel.msgmax", None),
            ("net.core.somaxconn", None),
            ("kernel.sem", Some("kernel.sem")),
            ("net.core.somaxconn2", Some("net.core.somaxconn2")),
        ];
        for (name, expected) in rows {
            assert_eq!(forbidden_sysctl(&spec(name), &allowed), expected, "{name}");
        }
    }

    #[test]
    fn namespaces_of_the_host() {
        let spec = |json: serde_json::Value| serde_json::from_value::<PodSpec>(json).expect("spec");
        let options =
            namespaces(&spec(serde_json::json!({"containers": [], "hostNetwork": true, "hostPID": true})), None);
        assert_eq!(options.network(), cri::NamespaceMode::Node);
        assert_eq!(options.pid(), cri::NamespaceMode::Node);
        assert_eq!(options.ipc(), cri::NamespaceMode::Pod);
        let own = namespaces(&spec(serde_json::json!({"containers": []})), None);
        assert_eq!(own.pid(), cri::NamespaceMode::Container);
    }
}
