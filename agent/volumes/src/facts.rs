//! What the node knows about a pod that the pod's own object does not say.

use std::collections::BTreeMap;

/// Facts that downward API files may show beside the pod's own metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The node's name.
    pub node_name: String,
    /// What a container without a limit may use of each resource: the node's allocatable, in base units
    /// (`cpu` in millicores, everything else in bytes). `resourceFieldRef: limits.cpu` falls back to it.
    pub allocatable: BTreeMap<String, i64>,
}

/// Where a volume lies on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPath {
    /// What is to be bind-mounted into containers.
    pub path: std::path::PathBuf,
    /// Whether it must be mounted read-only, whatever the container asks: secrets, configMaps and their like.
    pub read_only: bool,
}
