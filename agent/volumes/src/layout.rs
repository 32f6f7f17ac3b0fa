//! Where things lie: `ROOT/pods/UID/volumes/kubernetes.io~PLUGIN/NAME`, as the kubelet lays them out.

use std::path::{Path, PathBuf};

/// The folder of one pod.
pub(crate) fn pod(root: &Path, uid: &str) -> PathBuf {
    root.join("pods").join(uid)
}

/// The folder of one volume.
pub(crate) fn volume(root: &Path, uid: &str, plugin: &str, name: &str) -> PathBuf {
    pod(root, uid).join("volumes").join(format!("kubernetes.io~{plugin}")).join(name)
}

/// The folder with one pod's parts of volumes: `VOLUME/CONTAINER/INDEX` below it.
pub(crate) fn sub_paths(root: &Path, uid: &str) -> PathBuf {
    pod(root, uid).join("volume-subpaths")
}

/// Whether `name` may be a path component. The API server validates names; a manifest from a file had no such reader.
pub(crate) fn is_component(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_leave_its_folder_is_no_component() {
        for name in ["", ".", "..", "../x", "a/b", ".hidden", "a\0b", "a b"] {
            assert!(!is_component(name), "{name:?}");
        }
        for name in ["a", "kube-api-access-x7f2k", "0aa4b0d1-1d1c-4a4b-9c6b-1b2f6d0f8d10", "a.b"] {
            assert!(is_component(name), "{name:?}");
        }
    }
}
