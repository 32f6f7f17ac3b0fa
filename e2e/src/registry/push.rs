//! Uploading an image by the OCI distribution protocol.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::image::Image;
use crate::http::{self, Response};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const COMPRESSED: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Layers that are larger stay as they are: the way to a registry on the same machine is shorter than compressing.
const LARGE: usize = 4 << 20;

/// Uploads a manifest for this machine's architecture alone.
pub(super) fn push(address: &str, name: &str, image: &Image) -> Result<String> {
    let (repository, tag) = split(name)?;
    let manifest = manifest(address, repository, image)?;
    put(address, repository, tag, MANIFEST, &manifest)
}

/// Uploads it behind an index, as images for many architectures are.
pub(super) fn push_index(address: &str, name: &str, image: &Image) -> Result<String> {
    let (repository, tag) = split(name)?;
    let manifest = manifest(address, repository, image)?;
    let own = put(address, repository, &digest(&manifest), MANIFEST, &manifest)?;
    let index = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [{
            "mediaType": MANIFEST,
            "size": manifest.len(),
            "digest": own,
            "platform": {"architecture": architecture(), "os": "linux"},
        }],
    }))?;
    put(address, repository, tag, INDEX, &index)
}

fn split(name: &str) -> Result<(&str, &str)> {
    name.rsplit_once(':').context("an image name is REPOSITORY:TAG")
}

/// Puts a manifest or an index under a tag or its digest, and returns the digest.
fn put(address: &str, repository: &str, under: &str, kind: &str, bytes: &[u8]) -> Result<String> {
    let target = format!("/v2/{repository}/manifests/{under}");
    let answer = http::request(address, "PUT", &target, &[("Content-Type", kind)], bytes)?;
    expect(&answer, 201, &target)?;
    Ok(digest(bytes))
}

/// Uploads layers and configuration, and returns the manifest.
fn manifest(address: &str, repository: &str, image: &Image) -> Result<Vec<u8>> {
    let (mut layers, mut ids) = (Vec::new(), Vec::new());
    for layer in &image.layers {
        let packed = packed(layer)?;
        blob(address, repository, packed.bytes(), &packed.digest)?;
        let kind = if packed.compressed.is_some() { COMPRESSED } else { LAYER };
        layers.push(json!({"mediaType": kind, "size": packed.bytes().len(), "digest": packed.digest}));
        ids.push(packed.id.clone());
    }
    let config = serde_json::to_vec(&image_config(image, &ids))?;
    let uploaded = digest(&config);
    blob(address, repository, &config, &uploaded)?;
    Ok(serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "size": config.len(), "digest": uploaded},
        "layers": layers,
    }))?)
}

/// `ids` are the layers' digests before compression.
fn image_config(image: &Image, ids: &[String]) -> Value {
    let history: Vec<Value> = ids.iter().map(|_| json!({"created_by": "berth e2e"})).collect();
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": image.config,
        "rootfs": {"type": "layers", "diff_ids": ids},
        "history": history,
    })
}

/// This machine's architecture by the name that images use.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Uploads what is not there yet; what another repository has is taken from there.
fn blob(address: &str, repository: &str, bytes: &[u8], digest: &str) -> Result<()> {
    /// The repository that a blob was uploaded to, by registry and digest.
    static HOMES: Mutex<BTreeMap<(String, String), String>> = Mutex::new(BTreeMap::new());
    let known = format!("/v2/{repository}/blobs/{digest}");
    if http::request(address, "HEAD", &known, &[], b"")?.status == 200 {
        return Ok(());
    }
    let key = (address.to_owned(), digest.to_owned());
    let home = HOMES.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
    let mut start = format!("/v2/{repository}/blobs/uploads/");
    if let Some(home) = &home {
        start.push_str(&format!("?mount={digest}&from={home}"));
    }
    let answer = http::request(address, "POST", &start, &[], b"")?;
    if home.is_some() && answer.status == 201 {
        return Ok(());
    }
    // Also where the registry has lost it.
    expect(&answer, 202, &start)?;
    let location = answer.header("Location").context("the registry names no upload location")?;
    let path = location.strip_prefix(&format!("http://{address}")).unwrap_or(location);
    let separator = if path.contains('?') { '&' } else { '?' };
    let target = format!("{path}{separator}digest={digest}");
    let answer = http::request(address, "PUT", &target, &[("Content-Type", "application/octet-stream")], bytes)?;
    expect(&answer, 201, &target)?;
    HOMES.lock().unwrap_or_else(PoisonError::into_inner).insert(key, repository.to_owned());
    Ok(())
}

fn expect(answer: &Response, status: u16, target: &str) -> Result<()> {
    if answer.status != status {
        bail!("{target}: status {} instead of {status}: {}", answer.status, String::from_utf8_lossy(&answer.body));
    }
    Ok(())
}

/// A layer as it is uploaded.
struct Packed {
    layer: Vec<u8>,
    /// The digest of `layer`.
    id: String,
    compressed: Option<Vec<u8>>,
    /// The digest of what is uploaded.
    digest: String,
}

impl Packed {
    fn bytes(&self) -> &[u8] {
        self.compressed.as_deref().unwrap_or(&self.layer)
    }
}

/// The layer compressed and its digests, once for all the images that it is in: they take seconds where they are not
/// optimised, and comparing takes no time.
fn packed(layer: &[u8]) -> Result<Arc<Packed>> {
    static KNOWN: Mutex<Vec<Arc<Packed>>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(packed) = known.iter().find(|packed| packed.layer == layer) {
        return Ok(Arc::clone(packed));
    }
    let id = digest(layer);
    let compressed = if layer.len() > LARGE { None } else { Some(gzip(layer)?) };
    let digest = compressed.as_deref().map_or_else(|| id.clone(), digest);
    let packed = Arc::new(Packed { layer: layer.to_vec(), id, compressed, digest });
    known.push(Arc::clone(&packed));
    Ok(packed)
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

fn digest(bytes: &[u8]) -> String {
    let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_packed_once_and_a_large_one_stays_as_it_is() {
        let layer = b"a layer of a test".to_vec();
        let first = packed(&layer).expect("packed");
        assert!(Arc::ptr_eq(&first, &packed(&layer.clone()).expect("known")));
        assert_eq!((first.id.as_str(), first.digest.as_str()), (&*digest(&layer), &*digest(first.bytes())));
        assert_ne!(first.bytes(), layer);
        let large = vec![7; LARGE + 1];
        let packed = packed(&large).expect("packed");
        assert_eq!((&packed.id, packed.bytes()), (&packed.digest, &*large));
    }
}
