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
const LARGE: usize = 16 << 20;

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
        let id = digest(layer);
        let compressed = if layer.len() > LARGE { None } else { Some(compressed(&id, layer)?) };
        let kind = if compressed.is_some() { COMPRESSED } else { LAYER };
        let bytes = compressed.as_deref().unwrap_or(layer);
        let uploaded = blob(address, repository, bytes)?;
        layers.push(json!({"mediaType": kind, "size": bytes.len(), "digest": uploaded}));
        ids.push(id);
    }
    let config = serde_json::to_vec(&image_config(image, &ids))?;
    let uploaded = blob(address, repository, &config)?;
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

/// Uploads what is not there yet and returns its digest.
fn blob(address: &str, repository: &str, bytes: &[u8]) -> Result<String> {
    let digest = digest(bytes);
    let known = format!("/v2/{repository}/blobs/{digest}");
    if http::request(address, "HEAD", &known, &[], b"")?.status == 200 {
        return Ok(digest);
    }
    let start = format!("/v2/{repository}/blobs/uploads/");
    let answer = http::request(address, "POST", &start, &[], b"")?;
    expect(&answer, 202, &start)?;
    let location = answer.header("Location").context("the registry names no upload location")?;
    let path = location.strip_prefix(&format!("http://{address}")).unwrap_or(location);
    let separator = if path.contains('?') { '&' } else { '?' };
    let target = format!("{path}{separator}digest={digest}");
    let answer = http::request(address, "PUT", &target, &[("Content-Type", "application/octet-stream")], bytes)?;
    expect(&answer, 201, &target)?;
    Ok(digest)
}

fn expect(answer: &Response, status: u16, target: &str) -> Result<()> {
    if answer.status != status {
        bail!("{target}: status {} instead of {status}: {}", answer.status, String::from_utf8_lossy(&answer.body));
    }
    Ok(())
}

/// The layer compressed, once for all the images that it is in.
fn compressed(id: &str, layer: &[u8]) -> Result<Arc<Vec<u8>>> {
    static KNOWN: Mutex<BTreeMap<String, Arc<Vec<u8>>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = known.get(id) {
        return Ok(Arc::clone(known));
    }
    let bytes = Arc::new(gzip(layer)?);
    known.insert(id.to_owned(), Arc::clone(&bytes));
    Ok(bytes)
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
