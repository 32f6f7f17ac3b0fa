//! A sandbox's namespaces, files, sysctls and ports.

use berth_cri_proto::v1 as cri;
use serde::{Deserialize, Serialize};

use crate::error::{ConfigError, no_nul};
use crate::host::CgroupDriver;
use crate::systemd::{NameError, Place, Slice};

/// Whose namespace the containers of a sandbox share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceScope {
    /// The pod's own.
    Pod,
    /// Each container has its own (PID only).
    Container,
    /// The node's.
    Node,
}

/// The ids of a pod's user namespace: 0 to `length` - 1 inside are `host` and up on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserIds {
    pub host: u32,
    pub length: u32,
}

impl From<UserIds> for berth_plan::container::IdRange {
    fn from(ids: UserIds) -> Self {
        Self { host: ids.host, length: ids.length }
    }
}

/// What a sandbox consists of. It is part of the sandbox's record, so its serde form must stay readable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxPlan {
    /// `Pod` or `Node`.
    pub network: NamespaceScope,
    /// `Pod` or `Node`.
    pub ipc: NamespaceScope,
    /// With `Pod` the sandbox has a PID namespace, with a process 1 of its own.
    pub pid: NamespaceScope,
    /// The pod's user namespace; `None` for the node's.
    #[serde(default)]
    pub user: Option<UserIds>,
    /// A UTS namespace comes with the network namespace.
    pub new_uts: bool,
    /// Empty in the node's network namespace, and where the caller names none: the node's name then.
    pub hostname: String,
    /// Sorted by name; written with dots.
    pub sysctls: Vec<(String, String)>,
    /// Contents of /etc/resolv.conf; `None` copies the node's.
    pub resolv_conf: Option<String>,
    /// Absolute cgroup path, or empty where the caller named none.
    pub cgroup_parent: String,
    /// systemd's slice there, where systemd makes the containers' cgroups; else empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub slice: String,
    pub port_mappings: Vec<PortMapping>,
    /// Absolute, or empty: no logs.
    pub log_directory: String,
    /// Whether containers of the sandbox may be privileged.
    pub privileged: bool,
}

/// A port of the host that leads to a port of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    pub protocol: PortProtocol,
    pub container_port: u16,
    pub host_port: u16,
    /// Empty for all addresses.
    pub host_ip: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortProtocol {
    Tcp,
    Udp,
    Sctp,
}

/// What the names of containers' scopes begin with: `cri-berth-ID.scope`, as containerd has `cri-containerd-ID.scope`. Tools
/// find a container by the 64 digits of its id; by containerd's own name they would ask containerd for it.
const SCOPE_PREFIX: &str = "cri-berth";

impl SandboxPlan {
    /// The scope of a container, where systemd makes its cgroup.
    ///
    /// # Errors
    /// A slice that is none: the record was changed by somebody else.
    pub fn scope(&self, container: &str) -> Result<Option<Place>, NameError> {
        if self.slice.is_empty() {
            return Ok(None);
        }
        Place::scope(Slice::parse(&self.slice)?, SCOPE_PREFIX, container).map(Some)
    }

    /// Has the containers in a slice.
    pub fn put_into(&mut self, slice: &Slice) {
        self.cgroup_parent = slice.path();
        slice.name().clone_into(&mut self.slice);
    }
}

/// Compiles a sandbox's configuration.
pub fn sandbox(config: &cri::PodSandboxConfig, driver: CgroupDriver) -> Result<SandboxPlan, ConfigError> {
    metadata(config)?;
    let linux = config.linux.clone().unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    // An absent message says nothing, and a PID namespace for each container is what every kubelet asks for.
    let pid = match security.namespace_options.as_ref().map(cri::NamespaceOption::pid) {
        None | Some(cri::NamespaceMode::Container) => NamespaceScope::Container,
        Some(cri::NamespaceMode::Pod) => NamespaceScope::Pod,
        Some(cri::NamespaceMode::Node) => NamespaceScope::Node,
        Some(cri::NamespaceMode::Target) => {
            return Err(ConfigError::new(PID, "mode TARGET is for a container", "use POD, CONTAINER or NODE"));
        }
    };
    let options = security.namespace_options.unwrap_or_default();
    let network = pod_or_node("network", options.network())?;
    let ipc = pod_or_node("ipc", options.ipc())?;
    let user = user_namespace(USERNS, options.userns_options.as_ref())?;
    for (field, scope) in [(PID, pid), ("linux.security_context.namespace_options.ipc", ipc)] {
        if user.is_some() && scope == NamespaceScope::Node {
            return Err(ConfigError::new(
                field,
                "a pod with a user namespace of its own has no rights in the node's namespace",
                "use POD, or the node's user namespace",
            ));
        }
    }
    if security.run_as_group.is_some() && security.run_as_user.is_none() {
        return Err(ConfigError::new(
            "linux.security_context.run_as_group",
            "it is set without run_as_user",
            "set run_as_user too",
        ));
    }
    let (cgroup_parent, slice) = match driver {
        CgroupDriver::Cgroupfs => (cgroup_parent(&linux.cgroup_parent)?, String::new()),
        CgroupDriver::Systemd => slice(&linux.cgroup_parent)?,
    };
    Ok(SandboxPlan {
        network,
        ipc,
        pid,
        user,
        new_uts: network == NamespaceScope::Pod,
        hostname: hostname(config, network)?,
        sysctls: super::sysctls::compile(&linux.sysctls, network, ipc)?,
        resolv_conf: config.dns_config.as_ref().map(resolv_conf).transpose()?,
        cgroup_parent,
        slice,
        port_mappings: port_mappings(&config.port_mappings, network)?,
        log_directory: log_directory(&config.log_directory)?,
        privileged: security.privileged,
    })
}

fn metadata(config: &cri::PodSandboxConfig) -> Result<(), ConfigError> {
    let Some(metadata) = &config.metadata else {
        return Err(ConfigError::new("metadata", "it is missing", "name the pod, its namespace and its uid"));
    };
    for (field, value) in [("metadata.name", &metadata.name), ("metadata.namespace", &metadata.namespace)] {
        if value.is_empty() {
            return Err(ConfigError::new(field, "it is empty", "give the pod's own"));
        }
    }
    Ok(())
}

fn pod_or_node(which: &str, mode: cri::NamespaceMode) -> Result<NamespaceScope, ConfigError> {
    match mode {
        cri::NamespaceMode::Pod => Ok(NamespaceScope::Pod),
        cri::NamespaceMode::Node => Ok(NamespaceScope::Node),
        other => Err(ConfigError::new(
            format!("linux.security_context.namespace_options.{which}"),
            format!("mode {} does not exist for this namespace", other.as_str_name()),
            "use POD or NODE",
        )),
    }
}

pub(super) const PID: &str = "linux.security_context.namespace_options.pid";
pub(super) const USERNS: &str = "linux.security_context.namespace_options.userns_options";

/// The pod's user namespace. An absent message means the node's, as containerd reads it.
///
/// One range for users and groups is what the kubelet gives, and what id-mapped mounts of everybody's volumes need.
pub(super) fn user_namespace(
    field: &str,
    options: Option<&cri::UserNamespace>,
) -> Result<Option<UserIds>, ConfigError> {
    let Some(options) = options else { return Ok(None) };
    match options.mode() {
        cri::NamespaceMode::Node if options.uids.is_empty() && options.gids.is_empty() => Ok(None),
        cri::NamespaceMode::Node => {
            Err(ConfigError::new(field, "mode NODE comes with id mappings", "leave the mappings out, or use mode POD"))
        }
        cri::NamespaceMode::Pod => user_ids(field, &options.uids, &options.gids).map(Some),
        other => Err(ConfigError::new(
            field,
            format!("mode {} does not exist for user namespaces", other.as_str_name()),
            "use POD or NODE",
        )),
    }
}

/// The range of a pair of mappings.
pub(super) fn user_ids(field: &str, uids: &[cri::IdMapping], gids: &[cri::IdMapping]) -> Result<UserIds, ConfigError> {
    let refuse = |reason: String| Err(ConfigError::new(field, reason, "give one mapping of id 0 and up for both"));
    let ([uid], [gid]) = (uids, gids) else {
        return refuse(format!("it has {} user mappings and {} group mappings", uids.len(), gids.len()));
    };
    if uid != gid {
        return refuse("users and groups are mapped differently".to_owned());
    }
    if uid.container_id != 0 {
        return refuse(format!("id 0 inside is not mapped: the mapping starts at {}", uid.container_id));
    }
    // The highest id means "nobody in particular" to the kernel.
    if uid.length == 0 || uid.host_id.checked_add(uid.length).is_none() {
        return refuse(format!("{} ids from {} are no range of ids", uid.length, uid.host_id));
    }
    Ok(UserIds { host: uid.host_id, length: uid.length })
}

/// 64 bytes is the kernel's limit for a host name (uname(2)).
const MAX_HOSTNAME: usize = 64;

fn hostname(config: &cri::PodSandboxConfig, network: NamespaceScope) -> Result<String, ConfigError> {
    let name = &config.hostname;
    if network == NamespaceScope::Node {
        // The UTS namespace is the node's too: a name of the pod's own could only be set for the whole node.
        return Ok(String::new());
    }
    // An empty one keeps the node's, as containerd has it: clients other than the kubelet name none.
    if name.len() > MAX_HOSTNAME {
        return Err(ConfigError::new(
            "hostname",
            format!("it has {} bytes, and the kernel takes {MAX_HOSTNAME}", name.len()),
            "shorten it",
        ));
    }
    if name.chars().any(|c| c.is_control() || c.is_whitespace() || c == '/') {
        return Err(ConfigError::new("hostname", format!("{name:?} is not a host name"), "use a DNS label"));
    }
    Ok(name.clone())
}

/// Longest list that resolv.conf(5) readers take seriously; beyond it lines become unreadable for them.
const MAX_DNS_ENTRIES: usize = 64;

fn resolv_conf(dns: &cri::DnsConfig) -> Result<String, ConfigError> {
    for (field, entries) in [
        ("dns_config.servers", &dns.servers),
        ("dns_config.searches", &dns.searches),
        ("dns_config.options", &dns.options),
    ] {
        if entries.len() > MAX_DNS_ENTRIES {
            return Err(ConfigError::new(
                field,
                format!("it has {} entries, more than {MAX_DNS_ENTRIES}", entries.len()),
                "shorten the list",
            ));
        }
        // One entry must stay one word of one line: a line feed would write further directives.
        if let Some(bad) = entries.iter().find(|e| e.is_empty() || e.chars().any(|c| c.is_control() || c == ' ')) {
            return Err(ConfigError::new(field, format!("{bad:?} is not one word"), "remove spaces and line breaks"));
        }
    }
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    Ok(text)
}

const PARENT: &str = "linux.cgroup_parent";

/// The path and the name of a slice; nothing where the caller names none.
fn slice(parent: &str) -> Result<(String, String), ConfigError> {
    const REMEDY: &str = "set the kubelet's cgroupDriver to systemd, or this runtime's to cgroupfs";
    if parent.is_empty() {
        return Ok((String::new(), String::new()));
    }
    let slice = Slice::at(parent).map_err(|error| ConfigError::new(PARENT, error.to_string(), REMEDY))?;
    let path = slice.path();
    if path.is_empty() {
        return Err(ConfigError::new(PARENT, "it is the root slice, which is everybody's", "name a slice of the pod"));
    }
    Ok((path, slice.name().to_owned()))
}

fn cgroup_parent(parent: &str) -> Result<String, ConfigError> {
    if parent.is_empty() {
        return Ok(String::new());
    }
    no_nul(PARENT, parent)?;
    if !parent.starts_with('/') {
        return Err(ConfigError::new(
            PARENT,
            format!("{parent:?} is not absolute"),
            "set the kubelet's cgroupDriver to cgroupfs, or give a path from the root of the hierarchy",
        ));
    }
    let mut clean = String::new();
    for part in parent.split('/').filter(|part| !part.is_empty()) {
        if part == "." || part == ".." || part.chars().any(char::is_control) {
            return Err(ConfigError::new(PARENT, format!("{parent:?} has a part {part:?}"), "give a plain path"));
        }
        clean.push('/');
        clean.push_str(part);
    }
    Ok(clean)
}

fn port_mappings(mappings: &[cri::PortMapping], network: NamespaceScope) -> Result<Vec<PortMapping>, ConfigError> {
    let mut ports = Vec::new();
    for (index, mapping) in mappings.iter().enumerate() {
        let field = |name: &str| format!("port_mappings[{index}].{name}");
        let host_port =
            u16::try_from(mapping.host_port).map_err(|_| port_range(field("host_port"), mapping.host_port))?;
        let container_port = u16::try_from(mapping.container_port)
            .map_err(|_| port_range(field("container_port"), mapping.container_port))?;
        if host_port == 0 || network == NamespaceScope::Node {
            continue;
        }
        if container_port == 0 {
            return Err(ConfigError::new(
                field("container_port"),
                "it is 0 although host_port is set",
                "name the port",
            ));
        }
        if !mapping.host_ip.is_empty() && mapping.host_ip.parse::<std::net::IpAddr>().is_err() {
            return Err(ConfigError::new(
                field("host_ip"),
                format!("{:?} is not an IP address", mapping.host_ip),
                "give an address of the node, or leave it empty",
            ));
        }
        let protocol = match mapping.protocol() {
            cri::Protocol::Tcp => PortProtocol::Tcp,
            cri::Protocol::Udp => PortProtocol::Udp,
            cri::Protocol::Sctp => PortProtocol::Sctp,
        };
        ports.push(PortMapping { protocol, container_port, host_port, host_ip: mapping.host_ip.clone() });
    }
    Ok(ports)
}

fn port_range(field: String, port: i32) -> ConfigError {
    ConfigError::new(field, format!("{port} is not a port"), "use a number from 0 to 65535")
}

fn log_directory(path: &str) -> Result<String, ConfigError> {
    const FIELD: &str = "log_directory";
    no_nul(FIELD, path)?;
    if path.is_empty() {
        return Ok(String::new());
    }
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(ConfigError::new(FIELD, format!("{path:?} is not a plain absolute path"), "give one without '..'"));
    }
    Ok(path.trim_end_matches('/').to_owned())
}
