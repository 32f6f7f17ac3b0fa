//! One configuration of several layers: the file, drop-ins in their order, and what the command line says.
//!
//! As in the reference, a later layer's value replaces an earlier one's; maps are merged by key, lists are replaced
//! (`kubernetes@v1.37.2:cmd/kubelet/app/server.go#mergeKubeletConfigurations`).

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::names::{NESTED_NOT_USED_YET, NOT_USED_YET};
use super::{Loaded, Raw, check};
use crate::decode::{FieldError, decode};
use crate::node::{Data, Node};
use crate::pods::Problem;
use crate::yaml::documents;

/// Fields that are paths: relative to the file that they stand in.
const PATHS: [&str; 4] = ["staticPodPath", "tlsCertFile", "tlsPrivateKeyFile", "authentication.x509.clientCAFile"];

/// A file's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Where it was read.
    pub file: PathBuf,
    /// What it holds: one document.
    pub text: String,
}

/// A field that the command line sets.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    /// The flag, as `--cluster-dns`.
    pub flag: String,
    /// The field, as `authentication.x509.clientCAFile`.
    pub field: String,
    /// Its value.
    pub value: Value,
}

/// Reads `layers` and then `overrides`, later ones winning.
///
/// # Errors
/// One line: file or flag, line, field, reason.
pub fn load_layers(layers: &[Layer], overrides: &[Override]) -> Result<Loaded, Problem> {
    let mut whole = Node { line: 1, data: Data::Mapping(Vec::new()) };
    let mut warnings = Vec::new();
    for layer in layers {
        let (document, mut unknown) = document(layer)?;
        // kubeadm writes every field, those too that say nothing.
        unknown.retain(|error| !is_unused(error) || !find(&document, &error.field).is_some_and(says_nothing));
        warnings.extend(warn(&layer.file.display().to_string(), &unknown, true));
        merge(&mut whole, document);
    }
    for over in overrides {
        let single = nest(&over.field, &over.value);
        let (_, unknown) = decode::<Raw>(&single).map_err(|error| problem_of(over, error.reason))?;
        warnings.extend(warn(&over.flag, &unknown, false));
        merge(&mut whole, single);
    }
    let last = layers.last().map_or(Path::new("KubeletConfiguration"), |layer| &layer.file);
    let (raw, _) =
        decode::<Raw>(&whole).map_err(|error| problem(last, Some(error.line), Some(&error.field), error.reason))?;
    let config = check(raw).map_err(|(field, reason)| blame(layers, overrides, field, &reason))?;
    Ok(Loaded { config, warnings })
}

/// Decodes one file by itself, so that what is wrong with it is said of it.
fn document(layer: &Layer) -> Result<(Node, Vec<FieldError>), Problem> {
    let file = layer.file.as_path();
    let documents =
        documents(&layer.text).map_err(|e| problem(file, Some(e.line), None, format!("is not YAML: {}", e.reason)))?;
    let [document] = documents.as_slice() else {
        return Err(problem(file, None, None, format!("one document is needed, there are {}", documents.len())));
    };
    let mut document = document.clone();
    let (raw, unknown) = decode::<Raw>(&document)
        .map_err(|FieldError { line, field, reason }| problem(file, Some(line), Some(&field), reason))?;
    if raw.kind != "KubeletConfiguration" {
        let reason = format!("{:?} is not KubeletConfiguration", raw.kind);
        return Err(problem(file, line(&document, "kind"), Some("kind"), reason));
    }
    if raw.api_version != "kubelet.config.k8s.io/v1beta1" {
        let reason = format!("{:?} is not kubelet.config.k8s.io/v1beta1", raw.api_version);
        return Err(problem(file, line(&document, "apiVersion"), Some("apiVersion"), reason));
    }
    let base = file.parent().unwrap_or(Path::new(""));
    for path in PATHS {
        if let Some(Node { data: Data::String(text), .. }) = at(&mut document, path)
            && !text.is_empty()
        {
            *text = base.join(&*text).display().to_string();
        }
    }
    Ok((document, unknown))
}

/// Whose fault a field is: the flag's if one set it, else the last file's that has it.
fn blame(layers: &[Layer], overrides: &[Override], field: &str, reason: &str) -> Problem {
    if let Some(over) = overrides.iter().rfind(|over| over.field == field) {
        return problem_of(over, reason.to_owned());
    }
    for layer in layers.iter().rev() {
        let document = documents(&layer.text).ok().and_then(|mut documents| documents.pop());
        if let Some(line) = document.and_then(|document| line(&document, field)) {
            return problem(&layer.file, Some(line), Some(field), reason.to_owned());
        }
    }
    let file = layers.last().map_or(Path::new("KubeletConfiguration"), |layer| &layer.file);
    problem(file, None, Some(field), reason.to_owned())
}

fn problem_of(over: &Override, reason: String) -> Problem {
    problem(Path::new(&over.flag), None, None, reason)
}

fn problem(file: &Path, line: Option<usize>, field: Option<&str>, reason: String) -> Problem {
    Problem { file: file.to_path_buf(), line, field: field.map(str::to_owned), reason }
}

fn line(document: &Node, field: &str) -> Option<usize> {
    find(document, field).map(|node| node.line)
}

fn find<'a>(document: &'a Node, field: &str) -> Option<&'a Node> {
    field.split('.').try_fold(document, |at: &Node, part| at.get(part))
}

/// Whether a value only means the default: nothing, zero, or made of that. A `false` may be meant.
fn says_nothing(node: &Node) -> bool {
    match &node.data {
        Data::Null => true,
        Data::Bool(_) => false,
        Data::Number(number) => number.as_f64() == Some(0.0),
        Data::String(text) => matches!(text.as_str(), "" | "0" | "0s"),
        Data::Sequence(items) => items.iter().all(says_nothing),
        Data::Mapping(entries) => entries.iter().all(|(_, node)| says_nothing(node)),
    }
}

/// Whether the field is known, and only not used yet.
fn is_unused(field: &FieldError) -> bool {
    NOT_USED_YET.contains(&field.field.as_str()) || NESTED_NOT_USED_YET.contains(&field.field.as_str())
}

fn at<'a>(document: &'a mut Node, field: &str) -> Option<&'a mut Node> {
    field.split('.').try_fold(document, |node, part| match &mut node.data {
        Data::Mapping(entries) => entries.iter_mut().find(|(name, _)| name == part).map(|(_, node)| node),
        _ => None,
    })
}

/// Lays `over` on `under`. `null` sets nothing, as in Go.
fn merge(under: &mut Node, over: Node) {
    match (&mut under.data, over.data) {
        (_, Data::Null) => {}
        (Data::Mapping(entries), Data::Mapping(new)) => {
            for (key, node) in new {
                match entries.iter_mut().find(|(name, _)| *name == key) {
                    Some((_, old)) => merge(old, node),
                    None => entries.push((key, node)),
                }
            }
        }
        (data, new) => {
            *data = new;
            under.line = over.line;
        }
    }
}

fn nest(field: &str, value: &Value) -> Node {
    let leaf = node(value);
    field.rsplit('.').fold(leaf, |inner, part| Node { line: 1, data: Data::Mapping(vec![(part.to_owned(), inner)]) })
}

fn node(value: &Value) -> Node {
    let data = match value {
        Value::Null => Data::Null,
        Value::Bool(flag) => Data::Bool(*flag),
        Value::Number(number) => Data::Number(number.clone()),
        Value::String(text) => Data::String(text.clone()),
        Value::Array(items) => Data::Sequence(items.iter().map(node).collect()),
        Value::Object(map) => Data::Mapping(map.iter().map(|(key, value)| (key.clone(), node(value))).collect()),
    };
    Node { line: 1, data }
}

fn warn(source: &str, unknown: &[FieldError], lines: bool) -> Vec<String> {
    let (unused, unknown): (Vec<_>, Vec<_>) = unknown.iter().partition(|field| is_unused(field));
    let name = |field: &&FieldError| {
        if lines { format!("{} (line {})", field.field, field.line) } else { field.field.clone() }
    };
    let names = |fields: &[&FieldError]| fields.iter().map(name).collect::<Vec<_>>().join(", ");
    let mut warnings = Vec::new();
    if !unknown.is_empty() {
        warnings.push(format!("{source}: unknown fields, ignored: {}", names(&unknown)));
    }
    if !unused.is_empty() {
        warnings.push(format!("{source}: accepted but not used by Berth yet: {}", names(&unused)));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

    fn layer(file: &str, body: &str) -> Layer {
        Layer { file: PathBuf::from(file), text: format!("{HEAD}{body}") }
    }

    fn over(flag: &str, field: &str, value: Value) -> Override {
        Override { flag: flag.to_owned(), field: field.to_owned(), value }
    }

    #[test]
    fn later_layers_win_field_by_field() {
        let layers = [
            layer("/a/config.yaml", "maxPods: 10\nport: 1000\nclusterDNS: [10.0.0.1, 10.0.0.2]\nstaticPodPath: pods\n"),
            layer(
                "/b/10.conf",
                "maxPods: 20\nclusterDNS: [10.0.0.3]\nauthentication: {x509: {clientCAFile: ca.crt}}\n",
            ),
            layer("/b/20.conf", "authentication: {anonymous: {enabled: true}}\nport: null\n"),
        ];
        let overrides =
            [over("--max-pods", "maxPods", json!(30)), over("--cgroup-root", "cgroupRoot", json!("/kubelet"))];
        let Loaded { config, warnings } = load_layers(&layers, &overrides).expect("loads");
        assert_eq!((config.max_pods, config.port, config.cgroup_root.as_str()), (30, 1000, "/kubelet"));
        assert_eq!(config.cluster_dns.len(), 1);
        assert_eq!(config.static_pod_path.as_deref(), Some(Path::new("/a/pods")));
        assert_eq!(config.client_ca_file.as_deref(), Some(Path::new("/b/ca.crt")));
        assert!(config.anonymous && warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn what_is_wrong_is_said_of_whoever_said_it() {
        let good = layer("/a/config.yaml", "clusterDNS: [10.0.0.1]\n");
        let cases = [
            (
                vec![good.clone(), layer("/b/1.conf", "port: http\n")],
                vec![],
                "/b/1.conf: line 3: field port: invalid type",
            ),
            (
                vec![good.clone(), layer("/b/1.conf", "port: 70000\n")],
                vec![],
                "/b/1.conf: line 3: field port: 70000 is not",
            ),
            (
                vec![good.clone()],
                vec![over("--cluster-dns", "clusterDNS", json!(["ten"]))],
                "--cluster-dns: \"ten\" is no IP address",
            ),
            (vec![good.clone()], vec![over("--port", "port", json!("x"))], "--port: invalid type: string"),
            (
                vec![Layer { text: "a: 1\n".to_owned(), ..good.clone() }],
                vec![],
                "field kind: \"\" is not KubeletConfiguration",
            ),
        ];
        for (layers, overrides, says) in cases {
            let error = load_layers(&layers, &overrides).expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        }
        let loaded = load_layers(&[good], &[over("--eviction-hard", "evictionHard", json!({}))]).expect("loads");
        assert_eq!(loaded.warnings, ["--eviction-hard: accepted but not used by Berth yet: evictionHard"]);
    }
}
