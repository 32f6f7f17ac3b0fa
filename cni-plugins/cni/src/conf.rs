//! Network configuration lists, as the administrator wrote them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{Version, VersionError};

/// A network: plugins that are called one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkList {
    pub name: String,
    /// The version in which the plugins are spoken to.
    pub cni_version: Version,
    /// CHECK is not to be called.
    pub disable_check: bool,
    /// GC is not to be called.
    pub disable_gc: bool,
    /// Never empty.
    pub plugins: Vec<PluginConf>,
    /// The whole list as JSON, from which it can be read again with [`NetworkList::parse`].
    pub bytes: Vec<u8>,
}

/// The configuration of one plugin of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginConf {
    /// `type`: which plugin.
    pub kind: String,
    /// Which capability arguments it wants.
    pub capabilities: BTreeMap<String, bool>,
    /// Everything, as it stands in the file.
    pub raw: Map<String, Value>,
}

/// Why a text is not a usable network configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfError {
    #[error("not valid JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("field \"{0}\" is missing or empty")]
    Missing(&'static str),
    #[error("field \"{field}\" must be {expected}")]
    Form { field: &'static str, expected: &'static str },
    #[error("network name \"{0}\" must start with a letter or digit and hold only those, \"_\", \".\" and \"-\"")]
    Name(String),
    #[error(transparent)]
    Version(#[from] VersionError),
    #[error("CNI version {0} is not supported (0.1.0 to 1.1.0 are)")]
    UnsupportedVersion(Version),
    #[error("the file is a list of plugins and must be called .conflist")]
    ListInConf,
    #[error("the file can't be read: {0}")]
    Read(std::io::Error),
}

impl NetworkList {
    /// Reads a `.conflist`.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub fn parse(text: &[u8]) -> Result<Self, ConfError> {
        Self::from_map(&serde_json::from_slice(text)?)
    }

    /// Reads a `.conf`: the configuration of a single plugin, as a list of one.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub fn parse_single(text: &[u8]) -> Result<Self, ConfError> {
        let conf: Map<String, Value> = serde_json::from_slice(text)?;
        if !conf.contains_key("type") && conf.contains_key("plugins") {
            return Err(ConfError::ListInConf);
        }
        let mut list = Map::new();
        for key in ["cniVersion", "name"] {
            if let Some(value) = conf.get(key) {
                list.insert(key.to_owned(), value.clone());
            }
        }
        list.insert("plugins".to_owned(), json!([conf]));
        Self::from_map(&list)
    }

    /// The same list with more plugins at its end, from the folder of drop-ins beside the file.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub(crate) fn with_drop_ins(&self, drop_ins: Vec<Value>) -> Result<Self, ConfError> {
        let mut list: Map<String, Value> = serde_json::from_slice(&self.bytes)?;
        let plugins = list.entry("plugins").or_insert_with(|| json!([]));
        if let Value::Array(plugins) = plugins {
            plugins.extend(drop_ins);
        }
        // What is read back from the cache is whole: nothing must be added to it a second time.
        list.insert("loadOnlyInlinedPlugins".to_owned(), json!(true));
        Self::from_map(&list)
    }

    /// Whether drop-ins are wanted.
    pub(crate) fn takes_drop_ins(&self) -> bool {
        serde_json::from_slice::<Map<String, Value>>(&self.bytes)
            .is_ok_and(|list| !matches!(flag(&list, "loadOnlyInlinedPlugins"), Ok(true)))
    }

    fn from_map(list: &Map<String, Value>) -> Result<Self, ConfError> {
        let name = text(list, "name")?;
        if !is_name(name) {
            return Err(ConfError::Name(name.to_owned()));
        }
        let plugins = match list.get("plugins") {
            Some(Value::Array(plugins)) if !plugins.is_empty() => plugins,
            None | Some(Value::Array(_)) => return Err(ConfError::Missing("plugins")),
            Some(_) => return Err(ConfError::Form { field: "plugins", expected: "a list of plugins" }),
        };
        Ok(Self {
            name: name.to_owned(),
            cni_version: choose_version(list)?,
            disable_check: flag(list, "disableCheck")?,
            disable_gc: flag(list, "disableGC")?,
            plugins: plugins.iter().map(PluginConf::from_value).collect::<Result<_, _>>()?,
            bytes: serde_json::to_vec(list)?,
        })
    }
}

impl PluginConf {
    fn from_value(value: &Value) -> Result<Self, ConfError> {
        let raw = value.as_object().ok_or(ConfError::Form { field: "plugins", expected: "a list of objects" })?;
        let capabilities = match raw.get("capabilities") {
            None | Some(Value::Null) => BTreeMap::new(),
            Some(value) => BTreeMap::deserialize(value)
                .map_err(|_| ConfError::Form { field: "capabilities", expected: "a map of names to true or false" })?,
        };
        let kind = text(raw, "type")?;
        // It becomes a file name in a folder of programs that run as root.
        if kind.contains('/') || kind == "." || kind == ".." {
            return Err(ConfError::Form { field: "type", expected: "a name without \"/\"" });
        }
        Ok(Self { kind: kind.to_owned(), capabilities, raw: raw.clone() })
    }
}

/// The newest version of `cniVersions` that we speak; without that list, `cniVersion`.
fn choose_version(list: &Map<String, Value>) -> Result<Version, ConfError> {
    let mut offered: Vec<Version> = Vec::new();
    match list.get("cniVersion") {
        None | Some(Value::Null) => {}
        Some(Value::String(version)) => offered.push(version.parse()?),
        Some(_) => return Err(ConfError::Form { field: "cniVersion", expected: "a version as text" }),
    }
    if let Some(versions) = list.get("cniVersions").and_then(Value::as_array) {
        for version in versions {
            offered.push(version.as_str().unwrap_or_default().parse()?);
        }
    }
    if offered.is_empty() {
        offered.push(Version::V0_1_0);
    }
    let newest = offered.iter().copied().filter(|version| version.is_supported()).max();
    newest.ok_or(ConfError::UnsupportedVersion(offered[0]))
}

/// A boolean that libcni also accepts as the texts "true" and "false".
fn flag(map: &Map<String, Value>, field: &'static str) -> Result<bool, ConfError> {
    match map.get(field) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(ConfError::Form { field, expected: "true or false" }),
    }
}

fn text<'a>(map: &'a Map<String, Value>, field: &'static str) -> Result<&'a str, ConfError> {
    match map.get(field) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        Some(Value::String(_)) | None | Some(Value::Null) => Err(ConfError::Missing(field)),
        Some(_) => Err(ConfError::Form { field, expected: "text" }),
    }
}

/// Container ids and network names: `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`.
pub(crate) fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        NetworkList::parse(text.as_bytes()).expect_err("refused").to_string()
    }

    #[test]
    fn a_list_is_read_and_can_be_read_again_from_its_bytes() {
        let text = r#"{"cniVersion": "0.4.0", "cniVersions": ["1.0.0", "1.1.0", "9.0.0"], "name": "pods",
            "disableCheck": "true", "plugins": [
            {"type": "bridge", "bridge": "cni0"},
            {"type": "portmap", "capabilities": {"portMappings": true}}]}"#;
        let list = NetworkList::parse(text.as_bytes()).expect("valid");
        assert_eq!(list.cni_version, Version::V1_1_0);
        assert!(list.disable_check && !list.disable_gc);
        assert!(list.plugins[1].capabilities["portMappings"]);
        assert_eq!(list.plugins[0].raw["bridge"], "cni0");
        assert_eq!(NetworkList::parse(&list.bytes).expect("again"), list);
    }

    #[test]
    fn a_single_plugin_becomes_a_list_of_one() {
        let list = NetworkList::parse_single(br#"{"name": "n", "type": "loopback"}"#).expect("valid");
        assert_eq!((list.plugins.len(), list.cni_version), (1, Version::V0_1_0));
        assert!(matches!(NetworkList::parse_single(br#"{"name": "n", "plugins": []}"#), Err(ConfError::ListInConf)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(error(r#"{"plugins": [{"type": "x"}]}"#), "field \"name\" is missing or empty");
        assert_eq!(error(r#"{"name": "n", "plugins": []}"#), "field \"plugins\" is missing or empty");
        assert_eq!(error(r#"{"name": "n", "plugins": [{}]}"#), "field \"type\" is missing or empty");
        assert!(error(r#"{"name": "../n", "plugins": [{"type": "x"}]}"#).contains("network name"));
        assert!(error(r#"{"name": "n", "plugins": [{"type": "../x"}]}"#).contains("without \"/\""));
        assert!(error(r#"{"name": "n", "cniVersion": "9.0.0", "plugins": [{"type": "x"}]}"#).contains("9.0.0"));
        assert!(error(r#"{"name": "n", "disableGC": 1, "plugins": [{"type": "x"}]}"#).contains("true or false"));
        assert!(error("{").contains("not valid JSON"));
    }
}
