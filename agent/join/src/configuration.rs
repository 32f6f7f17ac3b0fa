//! kubeadm's JoinConfiguration.
//!
//! kubeadm.k8s.io v1 and v1beta4, and v1beta3 for clusters that still know it. A file may hold kubeadm's other kinds too,
//! as kind's does; they are for other machines. What concerns joining and is not supported is refused by its path, so
//! that no wish is dropped silently.

use std::collections::BTreeSet;
use std::path::Path;

use berth_manifest::decode::{FieldError, decode};
use berth_manifest::{Data, Node, config, documents};
use k8s_openapi::api::core::v1::Taint;
use serde::Deserialize;
use serde_json::Value;

use crate::request::{self, Options};
use crate::{Argument, Discovery, JoinError, Request, Timeouts};

const KINDS: &[&str] = &[
    "InitConfiguration",
    "ClusterConfiguration",
    "JoinConfiguration",
    "ResetConfiguration",
    "UpgradeConfiguration",
    "KubeletConfiguration",
    "KubeProxyConfiguration",
];

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    api_version: String,
    kind: String,
    dry_run: bool,
    node_registration: RawRegistration,
    ca_cert_path: String,
    discovery: RawDiscovery,
    control_plane: Option<Value>,
    skip_phases: Vec<String>,
    patches: Option<RawPatches>,
    timeouts: RawTimeouts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawRegistration {
    name: String,
    cri_socket: String,
    taints: Option<Vec<Taint>>,
    /// A list of pairs since v1beta4, a mapping before: read from the node itself.
    kubelet_extra_args: Option<Value>,
    ignore_preflight_errors: Vec<String>,
    /// About the control plane's images, which a worker does not pull.
    image_pull_policy: String,
    image_pull_serial: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawDiscovery {
    bootstrap_token: Option<RawBootstrapToken>,
    file: Option<RawFile>,
    tls_bootstrap_token: String,
    /// v1beta3's place for it.
    timeout: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawBootstrapToken {
    token: String,
    #[serde(rename = "apiServerEndpoint")]
    api_server_endpoint: String,
    #[serde(rename = "caCertHashes")]
    ca_cert_hashes: Vec<String>,
    #[serde(rename = "unsafeSkipCAVerification")]
    unsafe_skip_ca_verification: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawFile {
    kube_config_path: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawPatches {
    directory: String,
}

/// Those of kubeadm's that a worker's join has a use for, and the names of the others.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawTimeouts {
    discovery: String,
    tls_bootstrap: String,
    control_plane_component_health_check: String,
    kubelet_health_check: String,
    #[serde(rename = "kubernetesAPICall")]
    kubernetes_api_call: String,
    #[serde(rename = "etcdAPICall")]
    etcd_api_call: String,
    upgrade_manifests: String,
}

/// Reads the JoinConfiguration of `text`, and what `options` add. `file` is for messages and relative paths, `hostname`
/// the machine's name.
///
/// # Errors
/// One line: file, line, field, reason.
pub fn load(file: &Path, text: &str, options: &Options, hostname: &str) -> Result<Request, JoinError> {
    let source = Source { file };
    let documents = documents(text).map_err(|e| source.at(Some(e.line), None, format!("is not YAML: {}", e.reason)))?;
    let (document, is_old_format) = source.find(&documents)?;
    let (raw, unknown) = decode::<Raw>(document)
        .map_err(|FieldError { line, field, reason }| source.at(Some(line), Some(&field), reason))?;
    if let Some(FieldError { line, field, .. }) = unknown.first() {
        return Err(source.at(Some(*line), Some(field), "is not known to JoinConfiguration".to_owned()));
    }
    let read = Read { source, document, is_old_format };
    read.refuse(&raw)?;
    let registration = &raw.node_registration;
    let request = Request {
        discovery: read.discovery(&raw.discovery)?,
        tls_bootstrap_token: Some(raw.discovery.tls_bootstrap_token.clone()).filter(|token| !token.is_empty()),
        node: if registration.name.is_empty() { hostname.to_owned() } else { registration.name.clone() },
        hostname: hostname.to_owned(),
        cri_socket: match registration.cri_socket.as_str() {
            "" => None,
            text => Some(request::cri_socket(text).map_err(|reason| read.field("nodeRegistration.criSocket", reason))?),
        },
        arguments: read.arguments()?,
        taints: registration.taints.clone().unwrap_or_default(),
        authority: match raw.ca_cert_path.as_str() {
            "" => crate::paths::AUTHORITY.into(),
            path if path.starts_with('/') => path.into(),
            path => return Err(read.field("caCertPath", format!("{path:?} is not absolute"))),
        },
        ignored: registration.ignore_preflight_errors.iter().map(|name| name.to_lowercase()).collect::<BTreeSet<_>>(),
        timeouts: read.timeouts(&raw)?,
        is_old_format,
    };
    request.with_file_options(options)
}

#[derive(Debug, Clone, Copy)]
struct Source<'a> {
    file: &'a Path,
}

impl Source<'_> {
    fn at(&self, line: Option<usize>, field: Option<&str>, reason: String) -> JoinError {
        let mut place = self.file.display().to_string();
        if let Some(line) = line {
            place.push_str(&format!(": line {line}"));
        }
        if let Some(field) = field.filter(|field| !field.is_empty()) {
            place.push_str(&format!(": field {field}"));
        }
        JoinError::Request { place, reason }
    }

    /// The one JoinConfiguration, and whether it is v1beta3's.
    fn find<'n>(&self, documents: &'n [Node]) -> Result<(&'n Node, bool), JoinError> {
        let mut found = None;
        for document in documents.iter().filter(|document| document.data != Data::Null) {
            let text = |key: &str| document.get(key).and_then(Node::as_str).unwrap_or_default();
            let line = |key: &str| document.get(key).map(|node| node.line);
            let kind = text("kind");
            if !KINDS.contains(&kind) {
                let reason = format!("{kind:?} is none of kubeadm's kinds");
                return Err(self.at(line("kind").or(Some(document.line)), Some("kind"), reason));
            }
            if kind != "JoinConfiguration" {
                continue;
            }
            let is_old = match text("apiVersion") {
                "kubeadm.k8s.io/v1" | "kubeadm.k8s.io/v1beta4" => false,
                "kubeadm.k8s.io/v1beta3" => true,
                other => {
                    let reason = format!("{other:?} is not kubeadm.k8s.io/v1, /v1beta4 or /v1beta3");
                    return Err(self.at(line("apiVersion").or(Some(document.line)), Some("apiVersion"), reason));
                }
            };
            if found.replace((document, is_old)).is_some() {
                return Err(self.at(
                    Some(document.line),
                    None,
                    "is a second JoinConfiguration: one is needed".to_owned(),
                ));
            }
        }
        found.ok_or_else(|| self.at(None, None, "holds no JoinConfiguration".to_owned()))
    }
}

struct Read<'a> {
    source: Source<'a>,
    document: &'a Node,
    is_old_format: bool,
}

impl Read<'_> {
    /// A mistake in a field, with the line of the nearest part of it that is there.
    fn field(&self, field: &str, reason: impl Into<String>) -> JoinError {
        let mut at = self.document;
        for part in field.split('.') {
            let Some(next) = at.get(part) else { break };
            at = next;
        }
        self.source.at(Some(at.line), Some(field), reason.into())
    }

    fn refuse(&self, raw: &Raw) -> Result<(), JoinError> {
        if raw.dry_run {
            return Err(self.field("dryRun", "is not supported: `berth doctor` tells what would be in the way"));
        }
        if raw.control_plane.is_some() {
            return Err(self.field("controlPlane", "is not supported: Berth joins as a worker"));
        }
        if let Some(phase) = raw.skip_phases.iter().find(|phase| *phase != "preflight") {
            return Err(self.field("skipPhases", format!("{phase:?} is not supported: only preflight can be skipped")));
        }
        if raw.patches.as_ref().is_some_and(|patches| !patches.directory.is_empty()) {
            return Err(
                self.field("patches.directory", "is not supported: change the cluster's kubelet-config instead")
            );
        }
        if self.is_old_format && self.document.get("timeouts").is_some() {
            return Err(self.field("timeouts", "is not known to JoinConfiguration v1beta3"));
        }
        if !self.is_old_format && !raw.discovery.timeout.is_empty() {
            return Err(self.field("discovery.timeout", "is v1beta3's: use timeouts.discovery"));
        }
        Ok(())
    }

    fn discovery(&self, raw: &RawDiscovery) -> Result<Discovery, JoinError> {
        match (&raw.bootstrap_token, &raw.file) {
            (None, None) => Err(self.field("discovery", "bootstrapToken or file must be set")),
            (Some(_), Some(_)) => Err(self.field("discovery", "bootstrapToken and file cannot both be set")),
            (None, Some(file)) => self.file(&file.kube_config_path),
            (Some(raw), None) => {
                let place = "discovery.bootstrapToken.apiServerEndpoint";
                if raw.api_server_endpoint.is_empty() {
                    return Err(self.field(place, "is missing"));
                }
                let by_token = request::by_token(
                    &raw.api_server_endpoint,
                    &raw.token,
                    &raw.ca_cert_hashes,
                    raw.unsafe_skip_ca_verification,
                    place,
                );
                by_token.map_err(|error| match error {
                    JoinError::TokenForm => {
                        self.field("discovery.bootstrapToken.token", "is not of the form abcdef.0123456789abcdef")
                    }
                    JoinError::PinForm { given, reason } => {
                        self.field("discovery.bootstrapToken.caCertHashes", format!("{given:?} {reason}"))
                    }
                    JoinError::PinMissing => self.field(
                        "discovery.bootstrapToken.caCertHashes",
                        "using token-based discovery without caCertHashes can be unsafe. Set unsafeSkipCAVerification as \
                         true to continue",
                    ),
                    JoinError::Request { reason, .. } => self.field(place, reason),
                    other => other,
                })
            }
        }
    }

    fn file(&self, path: &str) -> Result<Discovery, JoinError> {
        let place = "discovery.file.kubeConfigPath";
        match path {
            "" => Err(self.field(place, "is missing")),
            url if url.contains("://") => {
                Err(self.field(place, "an URL is not supported: download the file and name it"))
            }
            path => {
                let folder = self.source.file.parent().unwrap_or(Path::new(""));
                Ok(Discovery::File { path: folder.join(path) })
            }
        }
    }

    fn timeouts(&self, raw: &Raw) -> Result<Timeouts, JoinError> {
        let discovery = if self.is_old_format {
            config::duration("discovery.timeout", &raw.discovery.timeout)
        } else {
            config::duration("timeouts.discovery", &raw.timeouts.discovery)
        };
        let tls_bootstrap = config::duration("timeouts.tlsBootstrap", &raw.timeouts.tls_bootstrap);
        Ok(Timeouts {
            discovery: discovery.map_err(|(field, reason)| self.field(field, reason))?,
            tls_bootstrap: tls_bootstrap.map_err(|(field, reason)| self.field(field, reason))?,
        })
    }

    /// kubeletExtraArgs: `[{name, value}]`, or `{name: value}` in v1beta3.
    fn arguments(&self) -> Result<Vec<Argument>, JoinError> {
        const FIELD: &str = "nodeRegistration.kubeletExtraArgs";
        let Some(node) = self.document.get("nodeRegistration").and_then(|node| node.get("kubeletExtraArgs")) else {
            return Ok(Vec::new());
        };
        let wrong =
            |node: &Node, field: &str, reason: &str| self.source.at(Some(node.line), Some(field), reason.to_owned());
        let argument = |node: &Node, field: &str, name: &str, value: &str| {
            let named = !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !name.starts_with('-');
            if !named {
                return Err(wrong(
                    node,
                    field,
                    "is no argument's name: letters, digits and dashes, without the leading ones",
                ));
            }
            let place = format!("{}: line {}: field {field}", self.source.file.display(), node.line);
            Ok(Argument { name: name.to_owned(), value: value.to_owned(), place })
        };
        match (&node.data, self.is_old_format) {
            (Data::Null, _) => Ok(Vec::new()),
            (Data::Mapping(entries), true) => entries
                .iter()
                .map(|(name, node)| {
                    let field = format!("{FIELD}.{name}");
                    let value = node.as_str().ok_or_else(|| wrong(node, &field, "is no string (quote it)"))?;
                    argument(node, &field, name, value)
                })
                .collect(),
            (Data::Sequence(items), false) => items
                .iter()
                .enumerate()
                .map(|(index, item)| {
                    let field = format!("{FIELD}[{index}]");
                    let Data::Mapping(entries) = &item.data else {
                        return Err(wrong(item, &field, "is no mapping with name and value"));
                    };
                    if let Some((key, node)) = entries.iter().find(|(key, _)| key != "name" && key != "value") {
                        return Err(wrong(node, &format!("{field}.{key}"), "is not supported: name and value are"));
                    }
                    let text = |key: &str| match item.get(key) {
                        None => Ok(""),
                        Some(node) => node
                            .as_str()
                            .ok_or_else(|| wrong(node, &format!("{field}.{key}"), "is no string (quote it)")),
                    };
                    argument(item, &field, text("name")?, text("value")?)
                })
                .collect(),
            (_, true) => Err(wrong(node, FIELD, "is a mapping of names to values in v1beta3")),
            (_, false) => Err(wrong(node, FIELD, "is a list of pairs, each with name and value")),
        }
    }
}

#[cfg(test)]
mod tests;
