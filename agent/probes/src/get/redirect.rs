//! Where an answer sends its reader.

use http::Uri;

use super::{Get, target};

impl Get {
    /// The request that a `Location` asks for; `None` when it leads to another host. `Err` when it makes no sense.
    pub(super) fn redirected(&self, location: &str) -> Result<Option<Self>, String> {
        let absolute = if location.starts_with("//") {
            format!("{}:{location}", if self.https { "https" } else { "http" })
        } else {
            location.to_owned()
        };
        if !absolute.contains("://") {
            return Ok(Some(Self { target: beside(&self.target, &absolute), ..self.clone() }));
        }
        let uri: Uri = absolute
            .split('#')
            .next()
            .unwrap_or_default()
            .parse()
            .map_err(|error| format!("failed to parse Location header {location:?}: {error}"))?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            other => return Err(format!("unsupported protocol scheme {:?}", other.unwrap_or_default())),
        };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        if !host.eq_ignore_ascii_case(&self.host) {
            return Ok(None);
        }
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Some(Self { https, port, target: target(path), named: None, ..self.clone() }))
    }
}

/// A reference without a host, seen from where it was found.
fn beside(base: &str, reference: &str) -> String {
    let path = base.split('?').next().unwrap_or_default();
    if reference.starts_with('/') {
        target(reference)
    } else if reference.starts_with('?') {
        target(&format!("{path}{reference}"))
    } else {
        let folder = path.rfind('/').map_or("/", |at| &path[..=at]);
        target(&format!("{folder}{reference}"))
    }
}
