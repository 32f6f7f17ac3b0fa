//! Reads YAML manifests and configuration files as sigs.k8s.io/yaml does.
//!
//! Kubernetes reads YAML through sigs.k8s.io/yaml, a fork of go-yaml v2: YAML 1.1 with that library's own rules. A manifest
//! must mean the same here as with `kubectl`, so this crate reads the events of saphyr-parser and resolves scalars itself
//! ([`documents`]). serde_yaml (yaml_serde) can't serve: it resolves by YAML 1.2 before anyone sees a value, and its
//! value tree no longer tells `yes` from `"yes"` nor where a value stood (checked against its 0.10 `Value`).
//!
//! On top of that: typed decoding that knows the line and the path of every mistake and names unknown fields
//! ([`decode`]), pods from files as the API server would have completed them ([`pods`]), the kubelet's configuration
//! file ([`config`]), and a folder of manifests that is watched ([`folder`]).

pub mod config;
pub mod decode;
pub mod folder;
mod name;
mod node;
pub mod pods;
mod scalar;
mod yaml;

pub use name::is_subdomain;
pub use node::{Data, Node};
pub use yaml::{LONGEST, YamlError, documents};

/// `text` as JSON: the value when there is one document, a list when there are several.
///
/// # Errors
/// What [`documents`] refuses.
pub fn to_json(text: &str) -> Result<serde_json::Value, YamlError> {
    let mut values: Vec<_> = documents(text)?.iter().map(Node::to_value).collect();
    Ok(if values.len() == 1 { values.remove(0) } else { serde_json::Value::Array(values) })
}
