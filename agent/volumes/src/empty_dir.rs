//! `emptyDir`: a folder, or memory, that lives and dies with the pod.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};

use crate::{Facts, ownership, quantity, tmpfs};

/// What an `emptyDir` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Medium {
    Disk,
    /// At most so many bytes, when anything limits it.
    Memory(Option<i64>),
}

/// Reads the medium; answers the offending field and a reason when it can't be served.
pub(crate) fn medium(
    source: &EmptyDirVolumeSource,
    pod: &Pod,
    facts: &Facts,
) -> Result<Medium, (&'static str, String)> {
    let limit = match &source.size_limit {
        None => None,
        Some(limit) => match quantity::value(&limit.0) {
            Some(bytes) if bytes >= 0 => Some(bytes),
            _ => return Err(("emptyDir.sizeLimit", format!("{:?} is no quantity of bytes", limit.0))),
        },
    };
    match source.medium.as_deref().unwrap_or_default() {
        "" => Ok(Medium::Disk),
        "Memory" => Ok(Medium::Memory(memory_size(limit, pod, facts))),
        other => Err(("emptyDir.medium", format!("Berth does not implement the medium {other:?}"))),
    }
}

/// How large memory for this pod may grow: the least of the node's allocatable memory, the sum of the containers' limits
/// (when every container has one) and `limit`.
pub(crate) fn memory_size(limit: Option<i64>, pod: &Pod, facts: &Facts) -> Option<i64> {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let of_containers = containers
        .iter()
        .map(|container| {
            let limits = container.resources.as_ref()?.limits.as_ref()?;
            quantity::value(&limits.get("memory")?.0)
        })
        .try_fold(0_i64, |sum, bytes| sum.checked_add(bytes?));
    [facts.allocatable.get("memory").copied(), of_containers, limit].into_iter().flatten().filter(|b| *b > 0).min()
}

/// Makes it at `path`, world-writable whatever the umask says.
pub(crate) fn make(path: &Path, medium: Medium, fs_group: Option<u32>) -> io::Result<()> {
    folder(path)?;
    if let Medium::Memory(size) = medium {
        tmpfs::ensure(path, size)?;
    }
    match fs_group {
        Some(group) if !ownership::is_applied(path, group)? => ownership::apply(path, group, false),
        _ => Ok(()),
    }
}

/// A folder with mode 0777 at `path`.
pub(crate) fn folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    berth_effect::run("volume-folder-create", || {
        // Another pod's view of this one's secrets ends at pods/UID: only root may pass. The folder itself is for everyone
        // who has it mounted.
        fs::create_dir_all(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o777))
    })
}
