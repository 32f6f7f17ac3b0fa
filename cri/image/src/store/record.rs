//! The records on disk. They mean the same after a reboot, so they carry a version but no boot id.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The version that this program writes, and the only one it reads.
pub(crate) const VERSION: u32 = 1;

/// How much of a record is read: a configuration of 4 MiB, escaped as a JSON string.
pub(crate) const RECORD_LIMIT: u64 = 32 << 20;

/// What makes two layers the same tree.
///
/// A layer that holds an entry for each of its folders unpacks to the same tree wherever it lies. One that doesn't takes
/// those folders' owner and mode from the layers below, so it is the same tree only above the same layers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum LayerKey {
    /// Self-contained: its DiffID.
    #[serde(rename = "diff")]
    Alone(Digest),
    /// Bound to what lies below: its ChainID.
    #[serde(rename = "chain")]
    Above(Digest),
}

impl fmt::Display for LayerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alone(digest) => write!(f, "layer {digest}"),
            Self::Above(digest) => write!(f, "layer chain {digest}"),
        }
    }
}

/// `images/HEX.json`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    pub(crate) version: u32,
    pub(crate) id: Digest,
    /// Tagged names, each with the stamp of the pull that gave it: should a crash leave a name with two images, the
    /// greater stamp has it.
    pub(crate) tags: BTreeMap<String, u64>,
    /// Names with the digest of a manifest or index.
    pub(crate) digests: BTreeSet<String>,
    /// Bottom first.
    pub(crate) layers: Vec<LayerKey>,
    pub(crate) pinned: bool,
    /// The configuration's text: its digest is the id.
    pub(crate) config: String,
}

/// `layers/N/layer.json`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    pub(crate) version: u32,
    pub(crate) key: LayerKey,
    pub(crate) diff_id: Digest,
    /// Digest of what was downloaded; for people.
    pub(crate) blob: Digest,
    /// Bytes and inodes on disk.
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

/// `leases/HEX.json`, HEX = manifest digest
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LeaseRecord {
    pub(crate) version: u32,
    /// DiffIDs of the layers that the pull is about to use.
    pub(crate) layers: BTreeSet<Digest>,
}

/// `containers/ID/snapshot.json`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SnapshotRecord {
    pub(crate) version: u32,
    /// Image id.
    pub(crate) image: String,
    /// Bottom first.
    pub(crate) layers: Vec<LayerKey>,
    /// Layers of the images that the container mounts as volumes, one list an image, bottom first.
    #[serde(default)]
    pub(crate) volumes: Vec<Vec<LayerKey>>,
}

impl SnapshotRecord {
    /// All layers that the container needs.
    pub(crate) fn held(&self) -> impl Iterator<Item = &LayerKey> {
        self.layers.iter().chain(self.volumes.iter().flatten())
    }
}

/// A record that can be told apart from one of a future version.
pub(crate) trait Versioned: serde::de::DeserializeOwned + Serialize {
    fn version(&self) -> u32;
}

macro_rules! versioned {
    ($($record:ty),+) => {$(
        impl Versioned for $record {
            fn version(&self) -> u32 {
                self.version
            }
        }
    )+};
}
versioned!(ImageRecord, LayerRecord, LeaseRecord, SnapshotRecord);

/// Reads one record's bytes; the error says what is wrong.
pub(crate) fn decode<R: Versioned>(bytes: &[u8]) -> Result<R, String> {
    let record: R = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    match record.version() {
        VERSION => Ok(record),
        other => Err(format!("version {other} is not {VERSION}")),
    }
}

/// The bytes of one record.
pub(crate) fn encode<R: Versioned>(record: &R) -> std::io::Result<Vec<u8>> {
    serde_json::to_vec(record).map_err(std::io::Error::other)
}
