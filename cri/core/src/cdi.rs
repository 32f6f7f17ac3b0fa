//! Devices by name, as their vendors describe them on the node (Container Device Interface 1.1,
//! <https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>).
//!
//! A device becomes what a caller could have asked for itself: device nodes, mounts, variables and groups of the
//! container's configuration ([`apply`]), so that all rules of those hold for it too. Specifications come from the
//! node's administrator, but through many hands: sizes are bounded, and what Berth can't do (hooks above all) is
//! refused by its name rather than left out.

use std::collections::BTreeMap;

use berth_cri_proto::v1 as cri;
use berth_plan::container::DeviceKind;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::ConfigError;

/// The largest specification, in bytes.
pub const MAX_SPEC: u64 = 1 << 20;
/// All of them together, in bytes.
pub const MAX_ALL: u64 = 16 << 20;
/// The most specifications in a folder.
pub const MAX_SPECS: usize = 256;
/// Of those that can't be read, how many a refusal names.
const SHOWN: usize = 5;
/// The most devices of one container.
const MAX_DEVICES: usize = 256;

/// What was found on the node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// Where was looked; of two specifications that describe one device, the one in the later folder counts.
    pub folders: Vec<String>,
    pub files: Vec<SpecFile>,
}

/// A specification as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecFile {
    /// YAML, or JSON where it ends so.
    pub path: String,
    /// Which of [`Found::folders`] it lies in.
    pub folder: usize,
    /// Its contents, or why it could not be read.
    pub text: Result<String, String>,
}

/// A container's configuration with its devices in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    pub config: cri::ContainerConfig,
    /// Host paths of mounts that come from specifications: nobody makes them if they are missing.
    pub sources: Vec<String>,
    /// What a specification says of a node, by its path in the container.
    pub nodes: BTreeMap<String, NodeSpec>,
}

/// Where it says nothing, the node is as it is on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeSpec {
    /// The device that the host's node must be.
    pub kind: Option<DeviceKind>,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Spec {
    cdi_version: String,
    kind: String,
    #[serde(default, rename = "annotations")]
    _annotations: IgnoredAny,
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Device {
    name: String,
    #[serde(default, rename = "annotations")]
    _annotations: IgnoredAny,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Edits {
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    device_nodes: Vec<Node>,
    #[serde(default)]
    mounts: Vec<Mount>,
    #[serde(default, rename = "additionalGids")]
    additional_gids: Vec<u32>,
    #[serde(default)]
    hooks: Vec<IgnoredAny>,
    #[serde(default)]
    net_devices: Vec<IgnoredAny>,
    #[serde(default)]
    intel_rdt: Option<IgnoredAny>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Node {
    path: String,
    #[serde(default)]
    host_path: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    major: Option<u32>,
    #[serde(default)]
    minor: Option<u32>,
    #[serde(default)]
    permissions: String,
    #[serde(default)]
    file_mode: Option<u32>,
    #[serde(default)]
    uid: Option<u32>,
    #[serde(default)]
    gid: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Mount {
    host_path: String,
    container_path: String,
    #[serde(default)]
    options: Vec<String>,
    #[serde(default, rename = "type")]
    kind: String,
}

/// The configuration with what its CDI devices stand for.
///
/// # Errors
/// Which device is unknown and where was looked, which one is described twice, or what of a specification can't be done.
pub fn apply(config: &cri::ContainerConfig, found: &Found) -> Result<Applied, ConfigError> {
    let field = |index: usize| format!("CDI_devices[{index}].name");
    let mut applied = Applied { config: config.clone(), sources: Vec::new(), nodes: BTreeMap::new() };
    applied.config.cdi_devices.clear();
    if config.cdi_devices.len() > MAX_DEVICES {
        return Err(ConfigError::new("CDI_devices", format!("there are more than {MAX_DEVICES}"), "ask for fewer"));
    }
    let mut broken = Vec::new();
    let mut specs = Vec::new();
    for file in &found.files {
        match file.text.as_deref().map_err(Clone::clone).and_then(|text| parse(&file.path, text)) {
            Ok(spec) => specs.push((file, spec)),
            Err(reason) => broken.push(format!("{}: {reason}", file.path)),
        }
    }
    let mut done: Vec<&str> = Vec::new();
    let mut used: Vec<&str> = Vec::new();
    for (index, wanted) in config.cdi_devices.iter().enumerate() {
        let name = wanted.name.as_str();
        if done.contains(&name) {
            continue;
        }
        done.push(name);
        let (kind, device) = name.split_once('=').unwrap_or_default();
        if !kind.contains('/') || device.is_empty() {
            return Err(ConfigError::new(
                field(index),
                format!("{name:?} is not of the form vendor/class=device"),
                "use the name that the device plugin gives",
            ));
        }
        let mut there: Vec<(&SpecFile, &Spec, &Device)> = Vec::new();
        for (file, spec) in specs.iter().filter(|(_, spec)| spec.kind == kind) {
            there.extend(spec.devices.iter().filter(|known| known.name == device).map(|known| (*file, spec, known)));
        }
        let folder = there.iter().map(|(file, ..)| file.folder).max();
        there.retain(|(file, ..)| Some(file.folder) == folder);
        let [(file, spec, known)] = there.as_slice() else {
            broken.truncate(SHOWN);
            let reason = match there.len() {
                0 if broken.is_empty() => format!("the node describes no device {name:?}"),
                0 => format!("the node describes no device {name:?}; not readable: {}", broken.join("; ")),
                _ => format!("{} and {} both describe {name:?}", there[0].0.path, there[1].0.path),
            };
            let folders = found.folders.join(" and ");
            return Err(ConfigError::new(field(index), reason, format!("correct the specifications in {folders}")));
        };
        // What a specification says for all its devices is done once.
        if !used.contains(&file.path.as_str()) {
            used.push(&file.path);
            edit(&mut applied, &file.path, &spec.container_edits)?;
        }
        edit(&mut applied, &file.path, &known.container_edits)?;
    }
    Ok(applied)
}

fn parse(path: &str, text: &str) -> Result<Spec, String> {
    let parsed = if path.ends_with(".json") {
        serde_json::from_str::<Spec>(text).map_err(|error| error.to_string())
    } else {
        serde_saphyr::from_str::<Spec>(text).map_err(|error| error.to_string())
    };
    let spec = parsed?;
    let mut numbers = spec.cdi_version.split('.').map(|number| number.parse::<u32>());
    match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
        (Some(Ok(0)), Some(Ok(3..=8)), Some(Ok(_)), None) | (Some(Ok(1)), Some(Ok(0..=1)), Some(Ok(_)), None) => {
            Ok(spec)
        }
        _ => Err(format!("cdiVersion {:?} is none of 0.3.0 to 1.1.0", spec.cdi_version)),
    }
}

/// Adds what one set of edits says.
fn edit(applied: &mut Applied, path: &str, edits: &Edits) -> Result<(), ConfigError> {
    let refuse = |what: &str, reason: String| {
        Err(ConfigError::new("CDI_devices", format!("{path}: {what}: {reason}"), "use a specification without it"))
    };
    for (what, there) in [
        ("containerEdits.hooks", !edits.hooks.is_empty()),
        ("containerEdits.netDevices", !edits.net_devices.is_empty()),
        ("containerEdits.intelRdt", edits.intel_rdt.is_some()),
    ] {
        if there {
            return refuse(what, "it is not implemented".to_owned());
        }
    }
    for entry in &edits.env {
        let Some((key, value)) = entry.split_once('=') else {
            return refuse("containerEdits.env", format!("{entry:?} is not of the form NAME=value"));
        };
        applied.config.envs.push(cri::KeyValue { key: key.to_owned(), value: value.into() });
    }
    for node in &edits.device_nodes {
        let kind = match node.kind.as_str() {
            "" => None,
            "c" | "u" => Some(DeviceKind::Character),
            "b" => Some(DeviceKind::Block),
            other => return refuse("containerEdits.deviceNodes.type", format!("{other:?} is none of b, c and u")),
        };
        let host_path = if node.host_path.is_empty() { &node.path } else { &node.host_path };
        let permissions = if node.permissions.is_empty() { "rwm" } else { &node.permissions };
        let Node { major, minor, file_mode: mode, uid, gid, .. } = *node;
        applied.nodes.insert(node.path.clone(), NodeSpec { kind, major, minor, mode, uid, gid });
        applied.config.devices.push(cri::Device {
            container_path: node.path.clone(),
            host_path: host_path.clone(),
            permissions: permissions.to_owned(),
        });
    }
    for mount in &edits.mounts {
        if !matches!(mount.kind.as_str(), "" | "bind" | "none") {
            return refuse("containerEdits.mounts.type", format!("{:?} is not bind", mount.kind));
        }
        let mut made = cri::Mount {
            host_path: mount.host_path.clone(),
            container_path: mount.container_path.clone(),
            ..cri::Mount::default()
        };
        for option in &mount.options {
            match option.as_str() {
                "bind" | "rbind" | "rw" | "private" | "rprivate" => {}
                "ro" => made.readonly = true,
                "slave" | "rslave" => made.set_propagation(cri::MountPropagation::PropagationHostToContainer),
                "shared" | "rshared" => made.set_propagation(cri::MountPropagation::PropagationBidirectional),
                other => made.mount_options.push(other.to_owned()),
            }
        }
        applied.sources.push(mount.host_path.clone());
        applied.config.mounts.push(made);
    }
    if !edits.additional_gids.is_empty() {
        let security = applied.config.linux.get_or_insert_default().security_context.get_or_insert_default();
        // 0 adds nothing, says the specification.
        let groups = edits.additional_gids.iter().filter(|group| **group != 0).map(|group| i64::from(*group));
        security.supplemental_groups.extend(groups);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
