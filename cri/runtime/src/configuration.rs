//! Reading configurations, with the JSON path of what is wrong.

use std::fs;
use std::path::Path;

use berth_effect::record;
use oci_spec::runtime::Spec;
use serde::de::DeserializeOwned;

use crate::fault::{During, Fault, Outcome};
use crate::json_path;
use crate::store::MAX_CONFIGURATION;

/// A configuration and its text.
pub(crate) fn read(path: &Path) -> Outcome<(Spec, Vec<u8>)> {
    let text = record::read(path, MAX_CONFIGURATION).during(|| format!("read {}", path.display()))?;
    let text = text.ok_or_else(|| Fault::new(format!("JSON specification file {} not found", path.display())))?;
    let spec = parse(&text).map_err(|fault| fault.during(path.display()))?;
    Ok((spec, text))
}

/// What some JSON text means.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8]) -> Outcome<T> {
    serde_json::from_slice(text).map_err(|error| {
        let said = error.to_string();
        let said = said.split(" at line ").next().unwrap_or(&said);
        // Where text ends too early or makes no sense, there is no value with a path.
        let path = if error.is_data() { json_path::at(text, error.line(), error.column()) } else { String::new() };
        let place = format!("line {}, column {}", error.line(), error.column());
        Fault::new(if path.is_empty() { format!("{said} ({place})") } else { format!("{path}: {said} ({place})") })
    })
}

/// The bundle's folder, by its name without links.
pub(crate) fn bundle(given: Option<&str>) -> Outcome<String> {
    let given = given.filter(|path| !path.is_empty()).unwrap_or(".");
    let path = fs::canonicalize(given).during(|| format!("--bundle {given}"))?;
    path.into_os_string().into_string().map_err(|path| Fault::new(format!("--bundle: {path:?} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        let fault = |text: &str| parse::<Spec>(text.as_bytes()).expect_err(text).message;
        let text = r#"{"ociVersion":"1.0.2","process":{"user":{"uid":"0","gid":0},"cwd":"/"}}"#;
        assert!(fault(text).starts_with("process.user.uid: invalid type: string"), "{}", fault(text));
        let text = r#"{"ociVersion":"1.0.2","mounts":[{"destination":"/a"},{"destination":7}]}"#;
        assert!(fault(text).starts_with("mounts[1].destination: invalid type"), "{}", fault(text));
        let text = "{\"ociVersion\":\"1.0.2\",\n \"linux\":{\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"nope\"}]}}";
        assert!(fault(text).starts_with("linux.namespaces[1].type: unknown variant"), "{}", fault(text));
        let text = r#"{"ociVersion":"1.0.2","hooks":{"prestart":[{"args":["x"]}]}}"#;
        assert!(fault(text).starts_with("hooks.prestart[0]: missing field `path`"), "{}", fault(text));
        assert!(fault("{").contains("EOF"), "{}", fault("{"));
    }
}
