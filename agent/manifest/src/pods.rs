//! Pods from manifests: decoded strictly, completed as the API server would, and given the identity of static pods.

use std::fmt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, PodStatus, Toleration};

use crate::decode::{FieldError, decode};
use crate::node::{Data, Node};
use crate::yaml::documents;

mod check;
mod defaults;

pub use defaults::set_defaults;

/// Where a pod came from (`kubernetes@v1.37.2:pkg/kubelet/types#ConfigSourceAnnotationKey`).
pub const SOURCE_ANNOTATION: &str = "kubernetes.io/config.source";
/// The hash of what it was made from; the same as its UID.
pub const HASH_ANNOTATION: &str = "kubernetes.io/config.hash";

/// One line about a manifest that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The line, where there is one.
    pub line: Option<usize>,
    /// The field, where there is one.
    pub field: Option<String>,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: ", self.file.display())?;
        if let Some(line) = self.line {
            write!(out, "line {line}: ")?;
        }
        if let Some(field) = &self.field {
            write!(out, "field {field}: ")?;
        }
        out.write_str(&self.reason)
    }
}

impl std::error::Error for Problem {}

impl Problem {
    pub(crate) fn file(file: &Path, reason: impl Into<String>) -> Self {
        Self { file: file.to_path_buf(), line: None, field: None, reason: reason.into() }
    }

    fn field(file: &Path, error: FieldError) -> Self {
        let FieldError { line, field, reason } = error;
        Self { file: file.to_path_buf(), line: Some(line), field: Some(field).filter(|f| !f.is_empty()), reason }
    }
}

/// A pod, and where its manifest says its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The pod, complete.
    pub pod: Pod,
    /// The line of its name.
    pub line: usize,
}

/// Reads the pods of one file: documents of kind Pod, and lists of them.
///
/// The pods are static pods of the node `node_name`: named `NAME-NODE`, bound to it, with a UID that follows from the
/// node, the file and the content, so that it is stable over restarts and changes with the manifest.
///
/// # Errors
/// The first mistake; a file with one yields no pod at all.
pub fn read(file: &Path, text: &str, node_name: &str) -> Result<Vec<Manifest>, Problem> {
    let documents = documents(text).map_err(|error| Problem {
        file: file.to_path_buf(),
        line: Some(error.line),
        field: None,
        reason: format!("is not YAML: {}", error.reason),
    })?;
    if documents.is_empty() {
        return Err(Problem::file(file, "holds no manifest"));
    }
    let mut manifests = Vec::new();
    for document in &documents {
        manifests.extend(of_document(file, document, node_name)?);
    }
    Ok(manifests)
}

fn of_document(file: &Path, document: &Node, node_name: &str) -> Result<Vec<Manifest>, Problem> {
    let refuse = |node: &Node, field: &str, reason: String| {
        Problem::field(file, FieldError { line: node.line, field: field.to_owned(), reason })
    };
    if !matches!(document.data, Data::Mapping(_)) {
        return Err(refuse(document, "", "is not a manifest: a mapping with apiVersion and kind is needed".to_owned()));
    }
    let word = |field: &str| {
        let node = document.get(field).ok_or_else(|| refuse(document, field, "missing".to_owned()))?;
        node.as_str().map(|text| (node, text)).ok_or_else(|| refuse(node, field, "must be a string".to_owned()))
    };
    let (version, api_version) = word("apiVersion")?;
    let (kind_node, kind) = word("kind")?;
    if api_version != "v1" {
        return Err(refuse(
            version,
            "apiVersion",
            format!("{api_version:?} is not supported here: pods are of \"v1\""),
        ));
    }
    match kind {
        "Pod" => Ok(vec![of_pod(file, document, node_name)?]),
        "List" | "PodList" => match document.get("items").map(|items| &items.data) {
            Some(Data::Sequence(items)) => {
                let mut manifests = Vec::new();
                for item in items {
                    manifests.extend(of_document(file, item, node_name)?);
                }
                Ok(manifests)
            }
            _ => Err(refuse(document, "items", "a list of pods is needed".to_owned())),
        },
        other => {
            Err(refuse(kind_node, "kind", format!("{other:?} can't run without a cluster: only Pod and List can")))
        }
    }
}

fn of_pod(file: &Path, document: &Node, node_name: &str) -> Result<Manifest, Problem> {
    let (mut pod, unknown) = decode::<Pod>(document).map_err(|error| Problem::field(file, error))?;
    let mut unknown = unknown.into_iter();
    if let Some(mut first) = unknown.next() {
        let others: Vec<_> = unknown.map(|other| format!("{} (line {})", other.field, other.line)).collect();
        if !others.is_empty() {
            first.reason = format!("{}; so are {}", first.reason, others.join(", "));
        }
        return Err(Problem::field(file, first));
    }
    check::check(&pod).map_err(|(field, reason)| {
        Problem::field(file, FieldError { line: line_of(document, &field), field, reason })
    })?;
    let line = line_of(document, "metadata.name");
    set_defaults(&mut pod);
    identify(&mut pod, file, node_name);
    Ok(Manifest { pod, line })
}

/// The line of `field`, or of the innermost part of it that is there.
fn line_of(document: &Node, field: &str) -> usize {
    let mut node = document;
    for part in field.split(['.', '[', ']']).filter(|part| !part.is_empty()) {
        let below = match (&node.data, part.parse::<usize>()) {
            (Data::Sequence(items), Ok(index)) => items.get(index),
            _ => node.get(part),
        };
        match below {
            Some(below) => node = below,
            None => break,
        }
    }
    node.line
}

/// Gives a pod from a file its place and its identity (`kubernetes@v1.37.2:pkg/kubelet/config/common.go#applyDefaults`).
/// The UID is of the same kind as the kubelet's (FNV-1a of pod, node and file), not the same number: that one hashes Go's
/// in-memory form of the pod.
fn identify(pod: &mut Pod, file: &Path, node_name: &str) {
    let uid = pod.metadata.uid.clone().filter(|uid| !uid.is_empty()).unwrap_or_else(|| {
        let mut hash = Fnv128::new();
        hash.write(&serde_json::to_vec(&pod).unwrap_or_default());
        hash.write(format!("host:{node_name}file:{}", file.display()).as_bytes());
        format!("{:032x}", hash.0)
    });
    let metadata = &mut pod.metadata;
    metadata.name = metadata.name.take().map(|name| format!("{name}-{}", node_name.to_lowercase()));
    metadata.namespace = metadata.namespace.take().filter(|n| !n.is_empty()).or_else(|| Some("default".to_owned()));
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(HASH_ANNOTATION.to_owned(), uid.clone());
    annotations.insert(SOURCE_ANNOTATION.to_owned(), "file".to_owned());
    metadata.uid = Some(uid);
    if let Some(spec) = &mut pod.spec {
        spec.node_name = Some(node_name.to_owned());
        // Node trouble does not evict what no controller would start elsewhere.
        let forever = Toleration {
            operator: Some("Exists".to_owned()),
            effect: Some("NoExecute".to_owned()),
            ..Toleration::default()
        };
        let tolerations = spec.tolerations.get_or_insert_default();
        if !tolerations.contains(&forever) {
            tolerations.push(forever);
        }
    }
    pod.status = Some(PodStatus { phase: Some("Pending".to_owned()), ..PodStatus::default() });
}

/// FNV-1a with 128 bits.
struct Fnv128(u128);

impl Fnv128 {
    fn new() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }
}

#[cfg(test)]
mod tests;
