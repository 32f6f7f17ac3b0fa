//! A container: the OCI configuration, then the plan.

use std::collections::HashMap;

use berth_cri_proto::v1 as cri;
use berth_guard::Guard;
use berth_plan::container as plan;
use oci_spec::runtime as oci;

use super::{NamespaceScope, SandboxPlan, devices, lower, mounts, process, sandbox, security};
use crate::{
    capabilities,
    error::{ConfigError, no_nul},
    host::HostFacts,
    names, resources,
    view::{ImageView, Paths, SandboxView},
};

/// Of the OCI runtime specification that the configuration follows.
const OCI_VERSION: &str = "1.2.1";

/// Masked where the CRI lists nothing: containerd's list, and /proc/interrupts, which shows when keys are pressed.
pub const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Read-only where the CRI lists nothing.
pub const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Compiles a container's configuration. The two results describe the same container; see the module.
pub fn container(
    facts: &HostFacts,
    sandbox: &SandboxView<'_>,
    config: &cri::ContainerConfig,
    image: &ImageView,
    paths: &Paths,
) -> Result<(oci::Spec, plan::Container), ConfigError> {
    let linux = config.linux.clone().unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    check(facts, sandbox, config, &security)?;
    let pid = pid(sandbox, security.namespace_options.as_ref())?;
    let (profile, key) = security::seccomp(facts, &security, paths)?;

    let mut process = process::build(facts, sandbox, config, &security, image)?;
    process.set_apparmor_profile(security::apparmor(facts, &security, &paths.host)?);
    let limits = linux.resources.as_ref();
    process.set_oom_score_adj(limits.map(|limits| oom_score_adj(facts, limits.oom_score_adj)).transpose()?);

    let mounts = mounts::build(sandbox.plan, config, &security, paths)?;
    let nodes = devices::build(config, &security, paths)?;
    let (masked, readonly) = path_lists(&security, sandbox.plan.user.is_some())?;

    let mut oci_resources = oci::LinuxResources::default();
    if let Some(limits) = limits {
        oci_resources = oci_limits(limits)?;
    }
    oci_resources.set_devices(Some(nodes.rules));

    let mut oci_linux = oci::Linux::default();
    oci_linux
        .set_resources(Some(oci_resources))
        .set_cgroups_path(Some(cgroups_path(sandbox.plan, &paths.container)?.into()))
        .set_namespaces(Some(namespaces(sandbox, &security, &pid)))
        .set_devices((!nodes.nodes.is_empty()).then_some(nodes.nodes))
        .set_seccomp(profile)
        .set_rootfs_propagation(mounts.root_propagation)
        .set_masked_paths((!masked.is_empty()).then_some(masked))
        .set_readonly_paths((!readonly.is_empty()).then_some(readonly));
    if let Some(ids) = sandbox.plan.user {
        oci_linux.set_uid_mappings(Some(vec![mapping(ids)])).set_gid_mappings(Some(vec![mapping(ids)]));
    }

    let mut root = oci::Root::default();
    root.set_path("rootfs".into()).set_readonly(Some(security.readonly_rootfs));

    let mut spec = oci::Spec::default();
    spec.set_version(OCI_VERSION.to_owned())
        .set_root(Some(root))
        .set_hostname(None)
        .set_mounts(Some(mounts.mounts))
        .set_process(Some(process))
        .set_annotations(Some(annotations(sandbox, config)))
        .set_linux(Some(oci_linux));

    let plan = lower::container(
        facts,
        &spec,
        lower::Outside {
            id: paths.container.clone(),
            pid_from: pid,
            rootfs: plan::Rootfs::Overlay {
                lower: paths.lower.clone(),
                upper: paths.upper.clone(),
                work: paths.work.clone(),
            },
            log_path: paths.log_path.clone(),
            stdin: match (config.stdin, config.stdin_once) {
                (false, _) => plan::Stdin::None,
                (true, false) => plan::Stdin::Open,
                (true, true) => plan::Stdin::Once,
            },
            filter: key,
        },
    )?;
    Ok((spec, plan))
}

/// Where a container's log lies: below its sandbox's log folder, or nowhere when either is not named.
pub fn log_path(plan: &SandboxPlan, config: &cri::ContainerConfig) -> Result<String, ConfigError> {
    const FIELD: &str = "log_path";
    no_nul(FIELD, &config.log_path)?;
    if plan.log_directory.is_empty() || config.log_path.is_empty() {
        return Ok(String::new());
    }
    let plain = config.log_path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if !plain && Guard::LogBelowFolder.stands() {
        return Err(ConfigError::new(
            FIELD,
            format!("{:?} is not a plain path below log_directory", config.log_path),
            "give one like NAME/0.log",
        ));
    }
    Ok(format!("{}/{}", plan.log_directory, config.log_path))
}

/// What is refused before anything is built.
fn check(
    facts: &HostFacts,
    sandbox: &SandboxView<'_>,
    config: &cri::ContainerConfig,
    security: &cri::LinuxContainerSecurityContext,
) -> Result<(), ConfigError> {
    if config.metadata.as_ref().is_none_or(|metadata| metadata.name.is_empty()) {
        return Err(ConfigError::new("metadata.name", "it is empty", "name the container"));
    }
    if security.privileged && !sandbox.plan.privileged {
        return Err(ConfigError::new(
            "linux.security_context.privileged",
            "the sandbox was not made for privileged containers",
            "set privileged in the sandbox's security context too",
        ));
    }
    if !config.cdi_devices.is_empty() {
        return Err(ConfigError::new(
            "CDI_devices",
            format!("nobody has looked up what {:?} stands for", config.cdi_devices[0].name),
            "apply the node's specifications first",
        ));
    }
    let options = security.namespace_options.as_ref();
    if let Some(options) = options.and_then(|options| options.userns_options.as_ref()) {
        let asked = sandbox::user_namespace(sandbox::USERNS, Some(options))?;
        if asked != sandbox.plan.user {
            return Err(ConfigError::new(
                sandbox::USERNS,
                "it differs from the sandbox's, and a pod has one user namespace",
                "give what the sandbox was given",
            ));
        }
    }
    security::selinux(facts, security)
}

/// A mapping of the OCI configuration.
pub(super) fn mapping(ids: super::UserIds) -> oci::LinuxIdMapping {
    let builder = oci::LinuxIdMappingBuilder::default().container_id(0_u32).host_id(ids.host).size(ids.length);
    // Every field has a default, so nothing can be missing.
    builder.build().unwrap_or_default()
}

/// Whose PID namespace the container is born into, where it gets none of its own.
fn pid(
    sandbox: &SandboxView<'_>,
    options: Option<&cri::NamespaceOption>,
) -> Result<Option<plan::PidFrom>, ConfigError> {
    const TARGET: &str = "linux.security_context.namespace_options.target_id";
    // An absent message says nothing: where the pod shares no PID namespace, one of its own is what every kubelet asks for.
    let mode = match options {
        Some(options) => options.pid(),
        None if sandbox.plan.pid == NamespaceScope::Pod => cri::NamespaceMode::Pod,
        None => cri::NamespaceMode::Container,
    };
    let refuse = |field: &str, reason: String, remedy: &str| Err(ConfigError::new(field, reason, remedy));
    match mode {
        cri::NamespaceMode::Container => Ok(None),
        cri::NamespaceMode::Pod if sandbox.plan.pid == NamespaceScope::Pod => Ok(Some(plan::PidFrom::Pod)),
        cri::NamespaceMode::Pod => refuse(
            sandbox::PID,
            "the sandbox was made without a PID namespace to share".to_owned(),
            "use mode POD for the sandbox too, or CONTAINER",
        ),
        cri::NamespaceMode::Node if sandbox.plan.user.is_some() => refuse(
            sandbox::PID,
            "a pod with a user namespace of its own has no rights in the node's PID namespace".to_owned(),
            "use POD, CONTAINER or TARGET",
        ),
        cri::NamespaceMode::Node => Ok(Some(plan::PidFrom::Shim)),
        cri::NamespaceMode::Target => {
            let target = options.map(|options| options.target_id.as_str()).unwrap_or_default();
            if sandbox.running.contains_key(target) {
                return Ok(Some(plan::PidFrom::Container(target.to_owned())));
            }
            refuse(
                TARGET,
                format!("no container {target:?} runs in this sandbox"),
                "give the whole id of a running container of the pod",
            )
        }
    }
}

fn namespaces(
    sandbox: &SandboxView<'_>,
    security: &cri::LinuxContainerSecurityContext,
    pid: &Option<plan::PidFrom>,
) -> Vec<oci::LinuxNamespace> {
    let new = |typ| {
        let mut namespace = oci::LinuxNamespace::default();
        namespace.set_typ(typ);
        namespace
    };
    let of = |typ, pid: i32, file| {
        let mut namespace = new(typ);
        namespace.set_path(Some(format!("/proc/{pid}/ns/{file}").into()));
        namespace
    };
    let joined = |typ, file| of(typ, sandbox.holder, file);
    let mut namespaces = Vec::new();
    match pid {
        None => namespaces.push(new(oci::LinuxNamespaceType::Pid)),
        Some(plan::PidFrom::Shim) => {}
        Some(plan::PidFrom::Pod) => namespaces.push(of(oci::LinuxNamespaceType::Pid, sandbox.init, "pid")),
        Some(plan::PidFrom::Container(target)) => {
            let pid = sandbox.running.get(target).copied().unwrap_or_default();
            namespaces.push(of(oci::LinuxNamespaceType::Pid, pid, "pid"));
        }
    }
    if sandbox.plan.user.is_some() {
        namespaces.push(new(oci::LinuxNamespaceType::User));
    }
    if sandbox.plan.ipc == NamespaceScope::Pod {
        namespaces.push(joined(oci::LinuxNamespaceType::Ipc, "ipc"));
    }
    if sandbox.plan.new_uts {
        namespaces.push(joined(oci::LinuxNamespaceType::Uts, "uts"));
    }
    namespaces.push(new(oci::LinuxNamespaceType::Mount));
    if sandbox.plan.network == NamespaceScope::Pod {
        namespaces.push(joined(oci::LinuxNamespaceType::Network, "net"));
    }
    // A privileged container sees the node's cgroups, as with containerd.
    if !security.privileged {
        namespaces.push(new(oci::LinuxNamespaceType::Cgroup));
    }
    namespaces
}

/// The masked and the read-only paths. The CRI cannot tell an empty list from none; none gets the defaults, except in a
/// user namespace: only there may a pod unmask /proc (procMount), which is told by empty lists.
fn path_lists(
    security: &cri::LinuxContainerSecurityContext,
    own_users: bool,
) -> Result<(Vec<String>, Vec<String>), ConfigError> {
    if security.privileged || own_users && security.masked_paths.is_empty() && security.readonly_paths.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let list = |field: &str, given: &[String], default: &[&str]| {
        if given.is_empty() && !Guard::MachineMasked.stands() {
            return Ok(Vec::new());
        }
        if given.is_empty() {
            return Ok(default.iter().map(|path| (*path).to_owned()).collect());
        }
        for path in given {
            no_nul(field, path)?;
            if !path.starts_with('/') {
                return Err(ConfigError::new(field, format!("{path:?} is not absolute"), "start it with a slash"));
            }
        }
        Ok(given.to_vec())
    };
    Ok((
        list("linux.security_context.masked_paths", &security.masked_paths, &MASKED)?,
        list("linux.security_context.readonly_paths", &security.readonly_paths, &READONLY)?,
    ))
}

fn oom_score_adj(facts: &HostFacts, wanted: i64) -> Result<i32, ConfigError> {
    let adj = i32::try_from(wanted).ok().filter(|adj| (-1000..=1000).contains(adj)).ok_or_else(|| {
        ConfigError::new("linux.resources.oom_score_adj", format!("{wanted} is out of range"), "use -1000 to 1000")
    })?;
    // Without CAP_SYS_RESOURCE nobody goes below the value that the runtime itself was started with.
    Ok(if facts.can_lower_oom { adj } else { adj.max(facts.oom_score_adj) })
}

fn oci_limits(limits: &cri::LinuxContainerResources) -> Result<oci::LinuxResources, ConfigError> {
    let limits = resources::from_cri(limits)?;
    let mut cpu = oci::LinuxCpu::default();
    cpu.set_shares(limits.cpu_shares)
        .set_quota(limits.cpu_quota)
        .set_period(limits.cpu_period)
        .set_cpus((!limits.cpuset_cpus.is_empty()).then_some(limits.cpuset_cpus))
        .set_mems((!limits.cpuset_mems.is_empty()).then_some(limits.cpuset_mems));
    let mut memory = oci::LinuxMemory::default();
    memory.set_limit(limits.memory_limit).set_swap(limits.memory_swap);
    let pages: Vec<_> = limits
        .hugepage_limits
        .iter()
        .map(|(size, bytes)| {
            let mut page = oci::LinuxHugepageLimit::default();
            page.set_page_size(size.clone()).set_limit(i64::try_from(*bytes).unwrap_or(i64::MAX));
            page
        })
        .collect();
    let unified: HashMap<_, _> = limits.unified.into_iter().collect();
    let mut resources = oci::LinuxResources::default();
    resources
        .set_cpu(Some(cpu))
        .set_memory(Some(memory))
        .set_hugepage_limits((!pages.is_empty()).then_some(pages))
        .set_unified((!unified.is_empty()).then_some(unified));
    Ok(resources)
}

/// In the form that runtimes take with either driver.
fn cgroups_path(plan: &SandboxPlan, id: &str) -> Result<String, ConfigError> {
    let scope =
        plan.scope(id).map_err(|error| ConfigError::new("linux.cgroup_parent", error.to_string(), "make it anew"))?;
    let scope = scope.and_then(|place| place.cgroups_path());
    Ok(scope.unwrap_or_else(|| names::cgroup(&plan.cgroup_parent, id)))
}

/// containerd's, which tools look for. Annotations of the pod and labels of the image stay out: an OCI runtime acts on
/// some (CVE-2024-3154).
fn annotations(sandbox: &SandboxView<'_>, config: &cri::ContainerConfig) -> HashMap<String, String> {
    let name = config.metadata.as_ref().map_or("", |metadata| &metadata.name);
    let image = config.image.as_ref().map_or("", |image| &image.image);
    let others = (!Guard::OwnAnnotations.stands()).then(|| config.annotations.clone());
    [
        ("container-type", "container"),
        ("sandbox-id", sandbox.id),
        ("sandbox-name", sandbox.name),
        ("sandbox-namespace", sandbox.namespace),
        ("sandbox-uid", sandbox.uid),
        ("container-name", name),
        ("image-name", image),
    ]
    .into_iter()
    .map(|(key, value)| (format!("io.kubernetes.cri.{key}"), value.to_owned()))
    .chain(others.into_iter().flatten())
    .collect()
}

/// The capability sets of a container, for [`process`].
pub(super) fn capability_sets(
    facts: &HostFacts,
    security: &cri::LinuxContainerSecurityContext,
) -> Result<plan::Capabilities, ConfigError> {
    let asked = security.capabilities.clone().unwrap_or_default();
    capabilities::sets(&asked, security.privileged, facts.bounding)
}
