//! The suite's own account: ginkgo's JSON report.
//! (<https://pkg.go.dev/github.com/onsi/ginkgo/v2/types#SpecReport>)

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// One run of a suite.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Report {
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(super) spec_reports: Vec<Spec>,
}

/// A spec, or another node such as what runs before all of them.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Spec {
    #[serde(deserialize_with = "null_is_empty")]
    pub(super) container_hierarchy_texts: Vec<String>,
    pub(super) leaf_node_type: String,
    pub(super) leaf_node_text: String,
    /// `passed`, `failed`, `skipped`, `panicked`, `timedout`, …
    pub(super) state: String,
    pub(super) failure: Option<Failure>,
}

/// Why a spec failed or skipped itself.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Failure {
    pub(super) message: String,
    pub(super) forwarded_panic: String,
    pub(super) location: Location,
}

/// A line of the suite.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Location {
    pub(super) file_name: String,
    pub(super) line_number: u64,
}

/// Reads a report; `critest` writes one for its one suite.
pub(super) fn read(path: &Path) -> Result<Vec<Spec>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    parse(&text).with_context(|| path.display().to_string())
}

fn parse(text: &str) -> Result<Vec<Spec>> {
    let reports: Vec<Report> = serde_json::from_str(text)?;
    Ok(reports.into_iter().flat_map(|report| report.spec_reports).collect())
}

/// Go writes a nil slice as null.
fn null_is_empty<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Option::<Vec<T>>::deserialize(from).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_with_what_go_leaves_out() {
        let text = r#"[{"SuitePath": "/x", "SpecReports": [
            {"ContainerHierarchyTexts": null, "LeafNodeType": "BeforeSuite", "LeafNodeText": "", "State": "passed"},
            {"ContainerHierarchyTexts": ["[k8s.io] Image Manager"], "LeafNodeType": "It", "LeafNodeText": "pulls",
             "State": "failed", "RunTime": 12,
             "Failure": {"Message": "no", "Location": {"FileName": "/a/image.go", "LineNumber": 7}}}]},
            {"SpecReports": null}]"#;
        let specs = parse(text).expect("a report");
        assert_eq!(specs.len(), 2);
        let failure = specs[1].failure.as_ref().expect("a failure");
        assert_eq!((failure.message.as_str(), failure.location.line_number), ("no", 7));
    }
}
