//! The ids of pods with users of their own, as the kubelet records them: `pods/UID/userns`.
//!
//! The records are all there is: a pod has its ids from before its first sandbox until its folder goes, which is after
//! everything else of it, whatever dies in between.

use std::fs;
use std::path::Path;

use berth_agent_core::names;
use berth_agent_core::users::{self, Users};
use berth_effect::record;
use k8s_openapi::api::core::v1::Pod;

use crate::shared::Shared;

/// Of a record.
const LIMIT: u64 = 64 << 10;

/// The ids of a pod that asks for its own; the first time they are chosen and written down. Blocks.
pub(crate) fn of(shared: &Shared, pod: &Pod) -> Result<Option<Users>, String> {
    if !users::wanted(pod.spec.as_ref()) {
        return Ok(None);
    }
    let path = names::users_file(&shared.config.root_dir, names::uid(pod));
    // Nobody else chooses meanwhile.
    let _turn = shared.choosing_users.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(known) = read(&path)? {
        return Ok(Some(known));
    }
    let folder = shared.config.root_dir.join("pods");
    let mut taken = Vec::new();
    for entry in fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))? {
        let entry = entry.map_err(|error| format!("{}: {error}", folder.display()))?;
        taken.extend(read(&names::users_file(&shared.config.root_dir, &entry.file_name().to_string_lossy()))?);
    }
    let new = Users::free(&taken).ok_or("hostUsers: false: other pods have all ids of this node")?;
    record::write_durable(&path, new.text().as_bytes()).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Some(new))
}

/// One that can't be read stops everybody: nobody knows whose ids the next pod would get.
fn read(path: &Path) -> Result<Option<Users>, String> {
    let bytes = match record::read(path, LIMIT) {
        // A file beside the folders of pods.
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => return Ok(None),
        other => other.map_err(|error| format!("{}: {error}", path.display()))?,
    };
    let Some(bytes) = bytes else { return Ok(None) };
    let parsed = Users::parse(&String::from_utf8_lossy(&bytes));
    parsed.map(Some).map_err(|reason| format!("{}: {reason}; delete the pod that it belongs to", path.display()))
}
