//! Every field of a pod: implemented, or refused by its path.
//!
//! The table ([`table`]) is by type, as the API's schema is; a test walks the OpenAPI document of Kubernetes against
//! it. A field counts as used when it is set to anything but its zero value.

pub mod table;

use serde_json::Value;

use k8s_openapi::api::core::v1::PodSpec;

/// What Berth makes of a field.
#[derive(Debug, Clone, Copy)]
pub enum Support {
    /// Implemented; or of no concern to a node (the scheduler's and the API server's own fields).
    Done,
    /// Implemented for these values only.
    Only(&'static [&'static str]),
    /// An object or a list of objects whose fields are listed in turn.
    Nested(&'static Type),
    /// Not implemented, and no harm to the pod that carries it: shown in its status alone.
    Apart,
    /// Not implemented.
    Refused,
}

/// One type of the API.
#[derive(Debug)]
pub struct Type {
    /// Its name in `io.k8s.api.core.v1`.
    pub name: &'static str,
    /// All its fields, in the schema's order.
    pub fields: &'static [(&'static str, Support)],
}

/// A field that a pod uses and Berth does not implement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: Berth does not implement this field{}", value.as_ref().map(|value| format!(" with the value {value}")).unwrap_or_default())]
pub struct Refusal {
    /// Its path, e.g. `spec.containers[0].volumeDevices`.
    pub path: String,
    /// Its value, where others are implemented.
    pub value: Option<String>,
}

/// The first field of `spec` that Berth does not implement.
pub fn refused(spec: &PodSpec) -> Option<Refusal> {
    // A spec that can't be written as JSON can't have been read from it.
    let value = serde_json::to_value(spec).ok()?;
    walk(&value, &table::POD_SPEC, "spec")
}

fn walk(value: &Value, kind: &Type, path: &str) -> Option<Refusal> {
    if let Value::Array(items) = value {
        return items.iter().enumerate().find_map(|(index, item)| walk(item, kind, &format!("{path}[{index}]")));
    }
    let Value::Object(map) = value else { return None };
    for (name, inner) in map {
        if is_zero(inner) {
            continue;
        }
        let path = format!("{path}.{name}");
        match kind.fields.iter().find(|(known, _)| known == name).map(|(_, support)| support) {
            Some(Support::Done | Support::Apart) => {}
            Some(Support::Only(values)) => {
                let text = inner.as_str().map_or_else(|| inner.to_string(), str::to_owned);
                if !values.contains(&text.as_str()) {
                    return Some(Refusal { path, value: Some(text) });
                }
            }
            Some(Support::Nested(nested)) => {
                if let Some(refusal) = walk(inner, nested, &path) {
                    return Some(refusal);
                }
            }
            Some(Support::Refused) | None => return Some(Refusal { path, value: None }),
        }
    }
    None
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        // An empty object says something where it chooses a source (`emptyDir: {}`).
        Value::Object(_) | Value::Bool(true) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests;
