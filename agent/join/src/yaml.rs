//! YAML that is one document.

use berth_manifest::{Node, documents};

/// The one document of `text`.
///
/// # Errors
/// In one line: where it is not YAML, or that it is not one document.
pub(crate) fn document(text: &str) -> Result<Node, String> {
    let all = documents(text).map_err(|error| format!("line {}: is not YAML: {}", error.line, error.reason))?;
    <[Node; 1]>::try_from(all).map(|[document]| document).map_err(|_| "one document is needed".to_owned())
}
