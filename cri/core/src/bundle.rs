//! A bundle's OCI configuration to what `berth-oci` executes (OCI runtime specification 1.3, config.md and
//! config-linux.md).
//!
//! Where the specification leaves things open, the result is what runc gives. What can't be carried out exactly is refused
//! by its JSON path; what [`unsupported`] names is refused wherever it is set, and `features` does not show it.

mod hooks;
mod mounts;
mod namespaces;
mod process;
pub mod resources;
mod words;

use berth_plan::{bundle as plan, container};
use oci_spec::runtime as oci;

use crate::compile::lower;
use crate::error::ConfigError;
use crate::host::{Arch, CgroupLayout};
use crate::seccomp;

pub use hooks::Hooks;
pub use mounts::options as mount_options;
pub use process::{Joining, exec};
pub use words::{FLAGS as NAMESPACE_WORDS, rlimits};

/// What the configuration does not say.
#[derive(Debug, Clone)]
pub struct Outside<'a> {
    pub id: &'a str,
    /// The bundle's folder: absolute.
    pub bundle: &'a str,
    pub arch: Arch,
    pub cgroups: &'a CgroupLayout,
    /// The container's cgroup in each hierarchy, as [`CgroupLayout`] lists them, the v2 tree last.
    pub cgroup_paths: &'a [String],
    pub no_pivot: bool,
    pub inherits_keyring: bool,
    /// How many descriptors from 3 up the process gets.
    pub kept_descriptors: u32,
    /// The state of the container for its own hooks, at create and at start.
    pub state: plan::State,
    pub start_state: plan::State,
}

/// What a configuration comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    pub bundle: plan::Bundle,
    /// Those that the runtime runs; the others are in the bundle.
    pub hooks: Hooks,
    pub limits: resources::Limits,
    /// Where the filter's listener goes to, and what is said with it.
    pub listener: Option<Listener>,
    /// What was left out without harm, for the log.
    pub remarks: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub path: String,
    pub metadata: String,
}

/// Compiles a configuration.
///
/// # Errors
/// The first field that is wrong or can't be done, by its JSON path.
pub fn compile(spec: &oci::Spec, outside: &Outside<'_>) -> Result<Compiled, ConfigError> {
    version(spec.version())?;
    unsupported(spec)?;
    let linux = spec.linux().clone().unwrap_or_default();
    let root = spec.root().as_ref().ok_or_else(|| wrong("root", "it is missing", "name the root file system"))?;
    if root.path().as_os_str().is_empty() {
        return Err(wrong("root.path", "it is missing", "name the root file system's folder"));
    }
    let spaces = namespaces::compile(&linux)?;
    let mut remarks = Vec::new();
    let mounts = mounts::compile(spec, outside, &spaces, &mut remarks)?;
    // With a /dev of the caller's, what is in it is the caller's business.
    let is_bound = |one: &plan::BundleMount| matches!(one.mount.source, container::MountSource::Bind { .. });
    let own_dev = mounts.iter().any(|one| one.mount.destination == "/dev" && is_bound(one));
    let hostname = named(spec.hostname(), "hostname", &spaces)?;
    let domainname = named(spec.domainname(), "domainname", &spaces)?;
    let (process, more, listener) = process::first(spec, &linux, outside)?;
    let hooks = hooks::compile(spec.hooks().as_ref())?;
    Ok(Compiled {
        limits: resources::compile(linux.resources().as_ref(), outside.cgroups)?,
        bundle: plan::Bundle {
            container: container::Container {
                id: outside.id.to_owned(),
                namespaces: spaces.new,
                pid_from: container::PidFrom::Shim,
                user: None,
                hostname,
                rootfs: container::Rootfs::Folder { path: absolute(outside.bundle, &lower::text(root.path())) },
                readonly_rootfs: root.readonly().unwrap_or(false),
                root_propagation: match linux.rootfs_propagation().as_deref() {
                    None | Some("") => lower::MS_SLAVE | lower::MS_REC,
                    Some(word) => lower::propagation(word).ok_or_else(|| {
                        wrong("linux.rootfsPropagation", format!("{word:?} is unknown"), "use shared, slave, private")
                    })?,
                },
                mounts: Vec::new(),
                devices: if own_dev { Vec::new() } else { lower::devices(&linux)? },
                links: if own_dev { Vec::new() } else { links() },
                sysctls: namespaces::sysctls(&linux, &spaces)?,
                masked_paths: paths("linux.maskedPaths", linux.masked_paths())?,
                readonly_paths: paths("linux.readonlyPaths", linux.readonly_paths())?,
                process,
                log_path: String::new(),
                stdin: container::Stdin::None,
                delegate: None,
            },
            mounts,
            user: spaces.user,
            joins: spaces.joins,
            time_offsets: spaces.time_offsets,
            domainname,
            runtime_hooks: !(hooks.prestart.is_empty() && hooks.create_runtime.is_empty()),
            create_container: hooks.create_container.clone(),
            start_container: hooks.start_container.clone(),
            state: outside.state.clone(),
            start_state: outside.start_state.clone(),
            no_pivot: outside.no_pivot,
            more,
        },
        hooks,
        listener,
        remarks,
    })
}

fn links() -> Vec<(String, String)> {
    // Programs that look for the kernel's memory find it only where the host shows it.
    lower::LINKS.map(|(path, to)| (path.to_owned(), to.to_owned())).to_vec()
}

pub(crate) fn wrong(field: impl Into<String>, reason: impl Into<String>, remedy: &str) -> ConfigError {
    ConfigError::new(field, reason, remedy)
}

/// The refusal of what is not there.
pub(crate) fn not_supported(field: impl Into<String>) -> ConfigError {
    ConfigError::new(field, "not supported", "remove it")
}

fn version(version: &str) -> Result<(), ConfigError> {
    let mut numbers = version.split(['.', '-', '+']);
    let is_number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u32>().is_ok());
    if numbers.next() == Some("1") && is_number(numbers.next()) && is_number(numbers.next()) {
        return Ok(());
    }
    Err(wrong("ociVersion", format!("{version:?} is no version 1 of the specification"), "use 1.0.0 to 1.3.0"))
}

/// Refuses what is not implemented.
fn unsupported(spec: &oci::Spec) -> Result<(), ConfigError> {
    let linux = spec.linux().as_ref();
    let process = spec.process().as_ref();
    let text = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    let set = [
        ("vm", spec.vm().is_some()),
        ("linux.intelRdt", linux.is_some_and(|linux| linux.intel_rdt().is_some())),
        (
            "linux.netDevices",
            linux.and_then(|linux| linux.net_devices().as_ref()).is_some_and(|devices| !devices.is_empty()),
        ),
        ("linux.mountLabel", linux.is_some_and(|linux| text(linux.mount_label()))),
        ("process.selinuxLabel", process.is_some_and(|process| text(process.selinux_label()))),
    ];
    match set.into_iter().find(|(_, is_set)| *is_set) {
        Some((field, _)) => Err(not_supported(field)),
        None => Ok(()),
    }
}

fn named(name: &Option<String>, field: &str, spaces: &namespaces::Namespaces) -> Result<Option<String>, ConfigError> {
    match name.as_deref() {
        None | Some("") => Ok(None),
        Some(_) if !spaces.own_uts => {
            Err(wrong(field, format!("unable to set {field} without a private UTS namespace"), "add one of type uts"))
        }
        Some(name) if name.len() > 64 => Err(wrong(field, "it has more than 64 bytes", "shorten it")),
        Some(name) => Ok(Some(name.to_owned())),
    }
}

fn paths(field: &str, paths: &Option<Vec<String>>) -> Result<Vec<String>, ConfigError> {
    let paths = paths.clone().unwrap_or_default();
    match paths.iter().position(|path| !path.starts_with('/')) {
        Some(index) => Err(wrong(format!("{field}[{index}]"), "it is not absolute", "begin it with /")),
        None => Ok(paths),
    }
}

/// A path of the configuration, which may be relative to the bundle.
pub(crate) fn absolute(bundle: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{bundle}/{path}") }
}

pub(crate) fn filter(
    linux: &oci::Linux,
    arch: Arch,
) -> Result<Option<(seccomp::Installation, Option<Listener>)>, ConfigError> {
    let Some(profile) = linux.seccomp() else { return Ok(None) };
    let installation = seccomp::installation(profile, arch)
        .map_err(|error| ConfigError { field: error.field.replace("seccomp profile ", "linux.seccomp."), ..error })?;
    let listener = profile.listener_path().as_ref().map(|path| Listener {
        path: lower::text(path),
        metadata: profile.listener_metadata().clone().unwrap_or_default(),
    });
    Ok(Some((installation, listener)))
}

#[cfg(test)]
mod tests;
