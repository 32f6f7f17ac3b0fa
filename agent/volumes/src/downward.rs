//! Downward API files: what a pod may know about itself.

use std::collections::BTreeMap;
use std::fmt::Write;

use k8s_openapi::api::core::v1::{Container, DownwardAPIVolumeFile, Pod, ResourceFieldSelector};

use crate::atomic::{Payload, Projection};
use crate::{Facts, quantity};

/// The files of `items`. The error names the field and the reason.
pub(crate) fn payload(
    items: &[DownwardAPIVolumeFile],
    default_mode: u32,
    pod: &Pod,
    facts: &Facts,
) -> Result<Payload, (String, String)> {
    let mut payload = Payload::new();
    for (index, item) in items.iter().enumerate() {
        let refuse = |below: &str, reason: String| (format!("items[{index}].{below}"), reason);
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => {
                self::field(pod, &field.field_path).map_err(|reason| refuse("fieldRef.fieldPath", reason))?
            }
            (None, Some(resource)) => {
                self::resource(pod, resource, facts).map_err(|reason| refuse("resourceFieldRef", reason))?
            }
            (None, None) => {
                return Err(refuse("fieldRef", "one of fieldRef and resourceFieldRef is needed".to_owned()));
            }
        };
        let mode = item.mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(default_mode);
        let path = item.path.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/");
        payload.insert(path, Projection { data: text.into_bytes(), mode, owner: None });
    }
    Ok(payload)
}

fn field(pod: &Pod, path: &str) -> Result<String, String> {
    let metadata = &pod.metadata;
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match map {
            "metadata.annotations" => &metadata.annotations,
            "metadata.labels" => &metadata.labels,
            _ => return Err(format!("fieldPath {path:?} does not support subscript")),
        };
        return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    match path {
        "metadata.annotations" => Ok(lines(metadata.annotations.as_ref())),
        "metadata.labels" => Ok(lines(metadata.labels.as_ref())),
        "metadata.name" => Ok(metadata.name.clone().unwrap_or_default()),
        "metadata.namespace" => Ok(metadata.namespace.clone().unwrap_or_default()),
        "metadata.uid" => Ok(metadata.uid.clone().unwrap_or_default()),
        _ => Err(format!("unsupported fieldPath: {path}")),
    }
}

/// `key="value"` lines, sorted, without a last newline (`kubernetes@v1.37.2:pkg/fieldpath#FormatMap`).
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<_> = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value))).collect();
    lines.join("\n")
}

/// As Go's `%q` writes it, which programs that read these files undo.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            ' '..='~' => out.push(c),
            c if u32::from(c) < 0x80 => drop(write!(out, "\\x{:02x}", u32::from(c))),
            c if is_printed(c) => out.push(c),
            c if u32::from(c) < 0x1_0000 => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => drop(write!(out, "\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

/// Near Go's `unicode.IsPrint`: no controls, no space but U+0020, no format characters, nothing private.
fn is_printed(c: char) -> bool {
    !c.is_control()
        && !c.is_whitespace()
        && !matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{e000}'..='\u{f8ff}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}' | '\u{f0000}'..)
}

fn resource(pod: &Pod, field: &ResourceFieldSelector, facts: &Facts) -> Result<String, String> {
    let name = field.container_name.as_deref().unwrap_or_default();
    let spec = pod.spec.as_ref().ok_or("the pod has no spec")?;
    let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let container = containers.find(|c| c.name == name).ok_or_else(|| format!("container {name} not found"))?;
    let (which, resource) = field
        .resource
        .split_once('.')
        .filter(|(which, resource)| {
            matches!(*which, "limits" | "requests")
                && (matches!(*resource, "cpu" | "memory" | "ephemeral-storage") || resource.starts_with("hugepages-"))
        })
        .ok_or_else(|| format!("unsupported container resource : {}", field.resource))?;
    let milli = amount(container, which, resource, facts)?;
    let divisor = match field.divisor.as_ref().map(|divisor| divisor.0.as_str()) {
        None | Some("" | "0") => 1000,
        Some(text) => {
            quantity::milli(text).filter(|d| *d > 0).ok_or_else(|| format!("divisor {text:?} is no quantity"))?
        }
    };
    // Rounded up, as the API documents it.
    Ok((milli / divisor + i128::from(milli % divisor != 0)).to_string())
}

/// In thousandths. A limit that is not set is what the node could give.
fn amount(container: &Container, which: &str, resource: &str, facts: &Facts) -> Result<i128, String> {
    let resources = container.resources.as_ref();
    let list = match which {
        "limits" => resources.and_then(|r| r.limits.as_ref()),
        _ => resources.and_then(|r| r.requests.as_ref()),
    };
    if let Some(text) = list.and_then(|list| list.get(resource)) {
        let milli =
            quantity::milli(&text.0).ok_or_else(|| format!("{which}.{resource}: {:?} is no quantity", text.0))?;
        if milli != 0 || which == "requests" {
            return Ok(milli);
        }
    }
    if which == "requests" {
        return Ok(0);
    }
    let allocatable = facts.allocatable.get(resource).copied().map(i128::from).unwrap_or_default();
    Ok(if resource == "cpu" { allocatable } else { allocatable * 1000 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web", "namespace": "prod", "uid": "u1",
                "labels": {"b": "2", "a": "one \"two\"\n"}, "annotations": {"x/y": "é\u{200b}"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"},
                "requests": {"cpu": "250m"}}}, {"name": "d"}]},
        }))
        .expect("a pod")
    }

    #[test]
    fn fields_read_as_the_kubelet_writes_them() {
        let pod = pod();
        assert_eq!(field(&pod, "metadata.labels").as_deref(), Ok("a=\"one \\\"two\\\"\\n\"\nb=\"2\""));
        assert_eq!(field(&pod, "metadata.labels['b']").as_deref(), Ok("2"));
        assert_eq!(field(&pod, "metadata.annotations").as_deref(), Ok("x/y=\"é\\u200b\""));
        assert_eq!(field(&pod, "metadata.annotations['absent']").as_deref(), Ok(""));
        assert_eq!(field(&pod, "metadata.uid").as_deref(), Ok("u1"));
        assert!(field(&pod, "spec.nodeName").is_err());
        assert!(field(&pod, "metadata.name['x']").is_err());
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let facts = Facts {
            node_name: String::new(),
            allocatable: BTreeMap::from([("cpu".into(), 1900), ("memory".into(), 1000)]),
        };
        let ask = |container: &str, what: &str, divisor: Option<&str>| {
            let field: ResourceFieldSelector = serde_json::from_value(
                serde_json::json!({"containerName": container, "resource": what, "divisor": divisor}),
            )
            .expect("a selector");
            resource(&pod(), &field, &facts)
        };
        assert_eq!(ask("c", "limits.cpu", None).as_deref(), Ok("2"));
        assert_eq!(ask("c", "limits.cpu", Some("1m")).as_deref(), Ok("1500"));
        assert_eq!(ask("c", "limits.memory", Some("1Mi")).as_deref(), Ok("64"));
        assert_eq!(ask("c", "requests.cpu", Some("1m")).as_deref(), Ok("250"));
        assert_eq!(ask("d", "requests.cpu", None).as_deref(), Ok("0"));
        assert_eq!(ask("d", "limits.cpu", None).as_deref(), Ok("2"));
        assert_eq!(ask("d", "limits.memory", None).as_deref(), Ok("1000"));
        assert!(ask("e", "limits.cpu", None).is_err());
        assert!(ask("c", "limits.gpu", None).is_err());
    }
}
