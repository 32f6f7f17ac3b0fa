//! What lies on the host under the paths that a container's configuration names.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use berth_cri_core::view::{HostDevice, HostFiles, HostPath};
use berth_cri_core::{compile, mountinfo};
use berth_cri_proto::v1 as cri;
use berth_plan::container::DeviceKind;
use tonic::Status;

use crate::apparmor;
use crate::places::text;

/// Of a seccomp profile.
const PROFILE_LIMIT: u64 = 4 << 20;

/// Deeper below a device folder than anything in /dev.
const DEPTH: usize = 8;

/// Mount sources that are missing are made, except those of `fixed`.
pub(crate) fn look_up(config: &cri::ContainerConfig, fixed: &[String]) -> Result<HostFiles, Status> {
    let mut files = HostFiles::default();
    let paths: Vec<&str> = compile::host_paths(config).collect();
    if !paths.is_empty() {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|error| Status::internal(format!("/proc/self/mountinfo: {error}")))?;
        for path in paths {
            // What can't be resolved does not exist for a container.
            let found = if fixed.iter().any(|known| known == path) { fs::canonicalize(path) } else { source(path) };
            if let Ok(resolved) = found {
                let resolved = text(&resolved);
                let propagation = mountinfo::propagation(&mountinfo, &resolved);
                files.mounts.insert(path.to_owned(), HostPath { resolved, propagation });
            }
        }
    }
    for path in compile::host_devices(config) {
        files.devices.insert(path.to_owned(), devices(Path::new(path), DEPTH));
    }
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    if security.is_some_and(|security| security.privileged) {
        files.all_devices = devices(Path::new("/dev"), DEPTH);
    }
    if let Some(path) = compile::seccomp_profile_path(config).map_err(|error| super::rpc::invalid(&error))? {
        let read = berth_effect::record::read(Path::new(&path), PROFILE_LIMIT);
        let bytes = read.map_err(|error| Status::invalid_argument(format!("seccomp profile {path:?}: {error}")))?;
        files.seccomp_profile = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    }
    files.apparmor_profiles = apparmor::loaded();
    Ok(files)
}

/// Where a mount's source really is. One that is missing becomes a folder, as other runtimes have it: kube-proxy mounts
/// /lib/modules wherever it runs. It stays, since others may use it by then.
fn source(path: &str) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.starts_with('/') => {
            berth_effect::run("mount-source-create", || {
                fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
            })?;
            fs::canonicalize(path)
        }
        other => other,
    }
}

/// The device nodes at a path or below it. Terminals and shared memory are the container's own, links lead elsewhere.
fn devices(path: &Path, depth: usize) -> Vec<HostDevice> {
    let Ok(data) = fs::symlink_metadata(path) else { return Vec::new() };
    // The path that was asked for may be a link; those found below it are not followed.
    let Ok(data) = (if depth == DEPTH { fs::metadata(path) } else { Ok(data) }) else { return Vec::new() };
    let kind = data.file_type();
    if kind.is_dir() && depth > 0 {
        let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
        let inner = |name: &std::ffi::OsStr| !["pts", "shm", "fd", "mqueue", ".lxc"].iter().any(|skip| name == *skip);
        return entries
            .flatten()
            .filter(|entry| inner(&entry.file_name()) && entry.file_name() != "console")
            .flat_map(|entry| devices(&entry.path(), depth - 1))
            .collect();
    }
    let kind = match (kind.is_char_device(), kind.is_block_device()) {
        (true, _) => DeviceKind::Character,
        (_, true) => DeviceKind::Block,
        _ => return Vec::new(),
    };
    let number = data.rdev();
    vec![HostDevice {
        path: text(path),
        kind,
        major: rustix::fs::major(number),
        minor: rustix::fs::minor(number),
        mode: data.mode() & 0o7777,
        uid: data.uid(),
        gid: data.gid(),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_source_becomes_a_folder_and_a_bad_one_stays_bad() {
        let folder = tempfile::tempdir().expect("folder");
        let inner = folder.path().join("lib/modules");
        let path = text(&inner);
        assert_eq!(source(&path).expect("made"), fs::canonicalize(&inner).expect("there"));
        assert!(inner.is_dir());
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "").expect("file");
        source(&text(&file.join("below"))).expect_err("below a file");
        std::os::unix::fs::symlink(folder.path().join("nowhere"), &link).expect("link");
        source(&text(&link)).expect_err("a link to nothing");
        source("relative/path").expect_err("not absolute");
    }
}
