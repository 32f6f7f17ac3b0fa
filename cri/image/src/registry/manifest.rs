//! Manifests and indexes: what we ask for, what we take, what we refuse.

use std::collections::BTreeMap;

use berth_guard::Guard;
use serde::Deserialize;

use crate::digest::Digest;
use crate::error::PullError;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The Accept header of a request for a manifest.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// More layers than overlayfs can stack are useless; far more are an attack.
const LAYER_LIMIT: usize = 500;
const INDEX_LIMIT: usize = 10_000;

/// What a descriptor points to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Descriptor {
    #[serde(rename = "mediaType", default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    #[serde(default)]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) variant: Option<String>,
}

/// A checked manifest or index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    Manifest { config: Descriptor, layers: Vec<Descriptor> },
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "schemaVersion")]
    schema_version: Option<u64>,
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Parses `bytes`, which came with `content_type` if any. A document that two readers could take for two different
    /// things is refused (CVE-2021-41190).
    pub(crate) fn parse(bytes: &[u8], content_type: Option<&str>, what: &str) -> Result<Self, PullError> {
        let refuse = |reason: String| PullError::BadManifest { what: what.to_owned(), reason };
        let announced = content_type.map(|text| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        if announced.as_deref().is_some_and(|kind| kind.contains("manifest.v1+") || kind.ends_with(".manifest.v1")) {
            let is_oci = announced.as_deref() == Some(OCI_MANIFEST);
            if !is_oci {
                return Err(refuse(
                    "Docker schema 1 is not supported; push the image again with a current tool".into(),
                ));
            }
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(|error| refuse(error.to_string()))?;
        if raw.fs_layers.is_some() || raw.schema_version == Some(1) {
            return Err(refuse("Docker schema 1 is not supported; push the image again with a current tool".into()));
        }
        if raw.schema_version != Some(2) {
            return Err(refuse("schemaVersion is not 2".into()));
        }
        let known = |kind: &str| matches!(kind, OCI_MANIFEST | OCI_INDEX | DOCKER_MANIFEST | DOCKER_LIST);
        if let (Some(inside), Some(outside)) = (&raw.media_type, announced.as_deref().filter(|kind| known(kind)))
            && inside != outside
            && Guard::OneKind.stands()
        {
            return Err(refuse(format!("its mediaType {inside:?} is not its Content-Type {outside:?}")));
        }
        let kind = raw.media_type.as_deref().or(announced.as_deref().filter(|kind| known(kind)));
        let manifests = raw.manifests.filter(|_| Guard::OneKind.stands() || raw.config.is_none());
        match (manifests, raw.config, raw.layers) {
            (Some(manifests), None, None) => {
                if kind.is_some_and(|kind| !matches!(kind, OCI_INDEX | DOCKER_LIST)) {
                    return Err(refuse(format!("an index of type {:?}", kind.unwrap_or_default())));
                }
                if manifests.len() > INDEX_LIMIT {
                    return Err(refuse(format!("more than {INDEX_LIMIT} manifests")));
                }
                Ok(Self::Index(manifests))
            }
            (None, Some(config), layers) => {
                if kind.is_some_and(|kind| !matches!(kind, OCI_MANIFEST | DOCKER_MANIFEST)) {
                    return Err(refuse(format!("a manifest of type {:?}", kind.unwrap_or_default())));
                }
                let layers = layers.unwrap_or_default();
                if layers.len() > LAYER_LIMIT {
                    return Err(refuse(format!("more than {LAYER_LIMIT} layers")));
                }
                Ok(Self::Manifest { config, layers })
            }
            (Some(_), ..) => Err(refuse("both an index and a manifest".into())),
            (None, None, _) => Err(refuse("neither an index nor an image manifest".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor() -> String {
        format!(r#"{{"mediaType":"x","digest":"sha256:{}","size":2}}"#, "0a".repeat(32))
    }

    fn parse(text: &str, content_type: Option<&str>) -> Result<Document, String> {
        Document::parse(text.as_bytes(), content_type, "r/i:t").map_err(|error| error.to_string())
    }

    #[test]
    fn manifests_and_indexes_are_told_apart() {
        let d = descriptor();
        let manifest = format!(r#"{{"schemaVersion":2,"config":{d},"layers":[{d},{d}]}}"#);
        assert!(
            matches!(parse(&manifest, Some(OCI_MANIFEST)), Ok(Document::Manifest { layers, .. }) if layers.len() == 2)
        );
        assert!(parse(&manifest, Some("application/vnd.docker.distribution.manifest.v2+json; charset=utf-8")).is_ok());
        assert!(parse(&manifest, Some("text/plain")).is_ok());
        let index = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{d}]}}"#);
        assert!(matches!(parse(&index, None), Ok(Document::Index(list)) if list.len() == 1));
        assert!(parse(&format!(r#"{{"schemaVersion":2,"config":{d},"layers":[]}}"#), None).is_ok());
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let d = descriptor();
        for (text, content_type, word) in [
            (format!(r#"{{"schemaVersion":2,"config":{d},"layers":[{d}],"manifests":[{d}]}}"#), None, "both"),
            (format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","config":{d},"layers":[]}}"#), None, "of type"),
            (
                format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{d},"layers":[]}}"#),
                Some(DOCKER_MANIFEST),
                "Content-Type",
            ),
            (format!(r#"{{"schemaVersion":2,"config":{d},"layers":[]}}"#), Some(OCI_INDEX), "of type"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.into(), None, "schema 1"),
            ("{}".into(), Some("application/vnd.docker.distribution.manifest.v1+prettyjws"), "schema 1"),
            (r#"{"schemaVersion":2}"#.into(), None, "neither"),
            ("<html>".into(), None, "expected value"),
            (format!(r#"{{"schemaVersion":2,"config":{}}}"#, d.replace("sha256", "md5")), None, "digest"),
        ] {
            let error = parse(&text, content_type).expect_err(&text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
