//! Results on disk, in libcni's `cniCacheV1` form: `DIR/results/NETWORK-CONTAINER-IFNAME`.
//!
//! An entry is written before the first plugin is called, without a result, and again with it: what a crash interrupts
//! is so found again with the very configuration it was begun with. Other runtimes and `cnitool` read the same files.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use berth_effect::record;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Attachment, CniResult, NetworkList, RuntimeError};

const KIND: &str = "cniCacheV1";
/// An attachment with more than this is refused, since it could not be read again to be detached. A pod's annotations,
/// which are among its capabilities, arrive in a message of at most 16 MiB.
const LARGEST_ENTRY: u64 = 64 << 20;

/// The folder of cached results.
#[derive(Debug, Clone)]
pub struct Cache {
    results: PathBuf,
}

/// One attachment as the cache knows it.
#[derive(Debug, Clone)]
pub struct Cached {
    /// The list with which it was added.
    pub list: NetworkList,
    pub attachment: Attachment,
    /// `None`: its ADD was begun and never ended.
    pub result: Option<CniResult>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    kind: String,
    container_id: String,
    /// The list, base64.
    config: String,
    if_name: String,
    network_name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    netns: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cni_args: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    capability_args: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
}

impl Cache {
    /// `cache_dir` is libcni's: `/var/lib/cni`.
    pub fn new(cache_dir: &Path) -> Self {
        let cache = Self { results: cache_dir.join("results") };
        // What a crash left between writing an entry and naming it; the attachment's DEL does not know of it.
        for path in cache.paths().filter(|path| is_temporary(path)) {
            let _ = fs::remove_file(path);
        }
        cache
    }

    /// Writes the entry of an attachment.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn write(
        &self,
        list: &NetworkList,
        attachment: &Attachment,
        result: Option<&CniResult>,
    ) -> Result<(), RuntimeError> {
        let path = self.path(&list.name, &attachment.container_id, &attachment.ifname);
        let failed = |source| RuntimeError::Cache { path: path.clone(), source };
        let result = result.map(|result| result.to_value(list.cni_version)).transpose();
        let entry = Entry {
            kind: KIND.to_owned(),
            container_id: attachment.container_id.clone(),
            config: STANDARD.encode(&list.bytes),
            if_name: attachment.ifname.clone(),
            network_name: list.name.clone(),
            netns: attachment.netns_text(),
            cni_args: attachment.args.clone(),
            capability_args: attachment.capabilities.clone(),
            result: result.map_err(io::Error::other).map_err(failed)?,
        };
        let text = serde_json::to_vec(&entry).map_err(io::Error::from).map_err(failed)?;
        if text.len() as u64 > LARGEST_ENTRY {
            let more = format!("the entry would have {} bytes, more than {LARGEST_ENTRY}", text.len());
            return Err(failed(io::Error::other(more)));
        }
        if !self.results.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.results).map_err(failed)?;
        }
        record::write_volatile(&path, &text).map_err(failed)
    }

    /// The entry of an attachment. One that can't be read counts as none, as in libcni.
    pub fn read(&self, network: &str, container_id: &str, ifname: &str) -> Option<Cached> {
        let cached = read(&self.path(network, container_id, ifname))?;
        // Names may hold the separator, so that two attachments could share a file name.
        let same = cached.list.name == network
            && cached.attachment.container_id == container_id
            && cached.attachment.ifname == ifname;
        same.then_some(cached)
    }

    /// Removes the entry of an attachment; one that is not there is fine.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn remove(&self, network: &str, container_id: &str, ifname: &str) -> Result<(), RuntimeError> {
        let path = self.path(network, container_id, ifname);
        if !path.exists() {
            return Ok(());
        }
        record::remove(&path).map_err(|source| RuntimeError::Cache { path, source })
    }

    /// Every readable entry, by file name.
    pub fn list(&self) -> Vec<Cached> {
        let mut paths: Vec<_> = self.paths().filter(|path| !is_temporary(path)).collect();
        paths.sort();
        paths.iter().filter_map(|path| read(path)).collect()
    }

    fn paths(&self) -> impl Iterator<Item = PathBuf> + use<> {
        let listing = fs::read_dir(&self.results).into_iter().flatten();
        listing.filter_map(|entry| Some(entry.ok()?.path()))
    }

    fn path(&self, network: &str, container_id: &str, ifname: &str) -> PathBuf {
        self.results.join(format!("{network}-{container_id}-{ifname}"))
    }
}

fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(record::TEMPORARY_PREFIX))
}

fn read(path: &Path) -> Option<Cached> {
    let text = record::read(path, LARGEST_ENTRY).ok()??;
    let entry: Entry = serde_json::from_slice(&text).ok()?;
    if entry.kind != KIND {
        return None;
    }
    let list = NetworkList::parse(&STANDARD.decode(&entry.config).ok()?).ok()?;
    let attachment = Attachment {
        container_id: entry.container_id,
        netns: (!entry.netns.is_empty()).then(|| entry.netns.into()),
        ifname: entry.if_name,
        args: entry.cni_args,
        capabilities: entry.capability_args,
    };
    let result = entry.result.and_then(|result| CniResult::from_value(&result).ok());
    Some(Cached { list, attachment, result })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(bytes: usize) -> Attachment {
        let annotations = serde_json::json!({ "io.kubernetes.cri.pod-annotations": { "large": "a".repeat(bytes) } });
        Attachment {
            container_id: "c1".to_owned(),
            netns: None,
            ifname: "eth0".to_owned(),
            args: Vec::new(),
            capabilities: serde_json::from_value(annotations).expect("a map"),
        }
    }

    #[test]
    fn what_is_written_can_be_read_again_however_large() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::new(folder.path());
        let list =
            NetworkList::parse(br#"{"cniVersion": "1.1.0", "name": "n", "plugins": [{"type": "x"}]}"#).expect("valid");
        // More than a kubelet's objects have, and the most that a message to the runtime can carry.
        for bytes in [5 << 20, 16 << 20] {
            let large = attachment(bytes);
            cache.write(&list, &large, Some(&CniResult::default())).expect("written");
            let cached = cache.read("n", "c1", "eth0").expect("it is found when it is to be detached");
            assert!(cached.attachment.capabilities == large.capabilities && cached.result.is_some());
            assert_eq!(cache.list().len(), 1);
        }
        cache.remove("n", "c1", "eth0").expect("removed");
        // One that could not be read again is not written at all, and says why.
        let error = cache.write(&list, &attachment(65 << 20), None).expect_err("too large");
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(format!("{error}: {source}").contains("more than 67108864"), "{error}: {source}");
        assert_eq!(fs::read_dir(folder.path().join("results")).expect("a folder").count(), 0);
    }
}
