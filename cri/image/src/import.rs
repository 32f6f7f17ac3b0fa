//! Images that do not come from a registry: an OCI layout in memory or in a folder.
//!
//! They take the same way as pulled ones: digests, DiffIDs and the confined unpacking are checked alike.
//! (<https://github.com/opencontainers/image-spec/blob/main/image-layout.md>)

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use oci_spec::image::Config;
use serde_json::json;
use tokio::sync::mpsc;

use crate::digest::Digest;
use crate::error::PullError;
use crate::registry::{Descriptor, Document, MANIFEST_LIMIT};

/// How much of an archive of a layout is held in memory.
const ARCHIVE_LIMIT: u64 = 1 << 30;
const CHUNK: usize = 256 << 10;

/// Where an image's documents and layers are read from.
#[derive(Debug, Clone)]
pub struct Layout(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Folder(PathBuf),
    Memory { index: Bytes, blobs: HashMap<Digest, Bytes> },
}

impl Layout {
    /// The layout in a folder: `index.json` and `blobs/`.
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        Self(Kind::Folder(path.into()))
    }

    /// A layout in a tar archive, at most 1 GiB, which is read whole.
    ///
    /// # Errors
    /// [`PullError::BadManifest`] when it is no such archive.
    pub fn archive(archive: impl Read) -> Result<Self, PullError> {
        let (mut index, mut blobs) = (None, HashMap::new());
        let read = || -> io::Result<()> {
            let mut archive = tar::Archive::new(archive.take(ARCHIVE_LIMIT));
            for entry in archive.entries()? {
                let mut entry = entry?;
                let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
                let blob = name.strip_prefix("blobs/").and_then(|blob| blob.replacen('/', ":", 1).parse().ok());
                if name != "index.json" && blob.is_none() {
                    continue;
                }
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                match blob {
                    Some(digest) => drop(blobs.insert(digest, Bytes::from(bytes))),
                    None => index = Some(Bytes::from(bytes)),
                }
            }
            Ok(())
        };
        let refuse = |reason: String| PullError::BadManifest { what: "archive".into(), reason };
        read().map_err(|error| refuse(error.to_string()))?;
        let index = index.ok_or_else(|| refuse("it holds no index.json".into()))?;
        Ok(Self(Kind::Memory { index, blobs }))
    }

    /// An image for this machine of one file, executable for all, at `path` in it. The same input makes the same image.
    ///
    /// # Errors
    /// [`PullError::Reference`] when `path` is no path in an image, [`PullError::Store`] when it can't be packed.
    pub fn single_binary(path: &str, binary: &[u8], config: &Config) -> Result<Self, PullError> {
        let fail = |error: &dyn std::error::Error| PullError::Store(format!("packing {path}: {error}"));
        let layer = Bytes::from(pack(path, binary).map_err(|error| fail(&error))?);
        let diff_id = Digest::sha256(&layer);
        let architecture = crate::registry::architecture();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        });
        let config = Bytes::from(serde_json::to_vec(&config).map_err(|error| fail(&error))?);
        let describe = |kind: &str, bytes: &Bytes| json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": Digest::sha256(bytes), "size": bytes.len() });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe("config.v1+json", &config),
            "layers": [describe("layer.v1.tar", &layer)],
        });
        let manifest = Bytes::from(serde_json::to_vec(&manifest).map_err(|error| fail(&error))?);
        let index = json!({ "schemaVersion": 2, "manifests": [describe("manifest.v1+json", &manifest)] });
        let index = Bytes::from(serde_json::to_vec(&index).map_err(|error| fail(&error))?);
        let blobs = [layer, config, manifest].map(|blob| (Digest::sha256(&blob), blob));
        Ok(Self(Kind::Memory { index, blobs: HashMap::from(blobs) }))
    }

    pub(crate) fn index(&self) -> Result<Document, PullError> {
        let bytes = match &self.0 {
            Kind::Memory { index, .. } => index.clone(),
            Kind::Folder(folder) => read(&folder.join("index.json"), MANIFEST_LIMIT)?,
        };
        Document::parse(&bytes, None, "index.json")
    }

    /// A small blob, whole and checked.
    pub(crate) fn blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes, PullError> {
        let what = descriptor.digest.to_string();
        if descriptor.size > limit {
            let detail = format!("{} bytes, at most {limit} are accepted", descriptor.size);
            return Err(PullError::TooLarge { what, detail });
        }
        let bytes = match &self.0 {
            Kind::Memory { blobs, .. } => blobs.get(&descriptor.digest).cloned().ok_or_else(|| missing(&what))?,
            Kind::Folder(folder) => read(&blob_path(folder, &descriptor.digest), limit)?,
        };
        if !descriptor.digest.matches(&bytes) {
            let actual = Digest::sha256(&bytes).to_string();
            return Err(PullError::DigestMismatch { what: "blob".into(), expected: what, actual });
        }
        Ok(bytes)
    }

    /// Streams a blob, which its taker checks.
    pub(crate) async fn stream(
        &self,
        descriptor: &Descriptor,
        to: &mpsc::Sender<Result<Bytes, PullError>>,
    ) -> Result<(), PullError> {
        let what = descriptor.digest.to_string();
        let path = match &self.0 {
            Kind::Memory { blobs, .. } => {
                let mut bytes = blobs.get(&descriptor.digest).cloned().ok_or_else(|| missing(&what))?;
                while !bytes.is_empty() {
                    let chunk = bytes.split_to(CHUNK.min(bytes.len()));
                    if to.send(Ok(chunk)).await.is_err() {
                        break;
                    }
                }
                return Ok(());
            }
            Kind::Folder(folder) => blob_path(folder, &descriptor.digest),
        };
        let to = to.clone();
        let read = tokio::task::spawn_blocking(move || -> Result<(), PullError> {
            let fail = |error: io::Error| not_read(&path, &error);
            let mut file = File::open(&path).map_err(fail)?;
            loop {
                let mut chunk = vec![0; CHUNK];
                let length = file.read(&mut chunk).map_err(fail)?;
                chunk.truncate(length);
                if length == 0 || to.blocking_send(Ok(chunk.into())).is_err() {
                    return Ok(());
                }
            }
        });
        read.await.map_err(|error| PullError::Store(error.to_string()))?
    }
}

/// The archive of one file, with an entry for each folder above it.
fn pack(path: &str, binary: &[u8]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::with_capacity(binary.len() + (8 << 10)));
    let path = Path::new(path.trim_start_matches('/'));
    let mut folders: Vec<&Path> = path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()).collect();
    folders.reverse();
    let header = |kind: tar::EntryType, size: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header
    };
    for folder in folders {
        archive.append_data(&mut header(tar::EntryType::Directory, 0), folder, io::empty())?;
    }
    archive.append_data(&mut header(tar::EntryType::Regular, binary.len() as u64), path, binary)?;
    archive.into_inner()
}

fn blob_path(folder: &Path, digest: &Digest) -> PathBuf {
    let algorithm = digest.as_str().split(':').next().unwrap_or_default();
    folder.join("blobs").join(algorithm).join(digest.hex())
}

fn read(path: &Path, limit: u64) -> Result<Bytes, PullError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    read.map_err(|error| not_read(path, &error))?;
    if bytes.len() as u64 > limit {
        let detail = format!("more than {limit} bytes");
        return Err(PullError::TooLarge { what: path.display().to_string(), detail });
    }
    Ok(bytes.into())
}

fn not_read(path: &Path, error: &io::Error) -> PullError {
    let (what, detail) = (path.display().to_string(), error.to_string());
    if error.kind() == io::ErrorKind::NotFound {
        PullError::NotFound { what, detail }
    } else {
        PullError::Store(format!("{what}: {detail}"))
    }
}

fn missing(what: &str) -> PullError {
    PullError::NotFound { what: what.to_owned(), detail: "not in this layout".into() }
}
