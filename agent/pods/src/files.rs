//! A pod's folders and logs on the node. Everything here blocks.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use berth_agent_core::names;
use k8s_openapi::api::core::v1::Pod;

use crate::shared::Shared;

/// What could not be done to which path.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}: {source}", path.display())]
pub(crate) struct FileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn at<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError { action, path: path.to_owned(), source }
}

fn make(path: &Path, mode: u32) -> Result<(), FileError> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(at("create folder", path))
}

/// Makes the pod's folders; those that exist are kept.
pub(crate) fn prepare(shared: &Shared, pod: &Pod) -> Result<(), FileError> {
    let folder = names::pod_folder(&shared.config.root_dir, names::uid(pod));
    berth_effect::run("pod-folders-create", || {
        make(&folder.join("containers"), 0o750)?;
        make(&shared.log_folder(pod), 0o755)
    })
}

/// Makes what one container instance mounts and writes to: its termination message, its log folder.
pub(crate) fn prepare_container(
    shared: &Shared,
    pod: &Pod,
    container: &str,
    attempt: u32,
) -> Result<PathBuf, FileError> {
    let file = names::termination_file(&shared.config.root_dir, names::uid(pod), container, attempt);
    berth_effect::run("container-files-create", || {
        make(&shared.log_folder(pod).join(container), 0o755)?;
        make(file.parent().unwrap_or(&file), 0o750)?;
        File::create(&file).map_err(at("create", &file))?;
        // Whatever the umask: the container's own user writes to it.
        fs::set_permissions(&file, Permissions::from_mode(0o666)).map_err(at("change mode of", &file))?;
        Ok(file)
    })
}

/// Writes the pod's `/etc/hosts` in place: containers have it mounted.
pub(crate) fn write_hosts(shared: &Shared, pod: &Pod, content: &str) -> Result<PathBuf, FileError> {
    let path = names::hosts_file(&shared.config.root_dir, names::uid(pod));
    if fs::read(&path).is_ok_and(|old| old == content.as_bytes()) {
        return Ok(path);
    }
    berth_effect::run("pod-hosts-write", || {
        let mut file = File::create(&path).map_err(at("create", &path))?;
        fs::set_permissions(&path, Permissions::from_mode(0o644)).map_err(at("change mode of", &path))?;
        file.write_all(content.as_bytes()).map_err(at("write", &path))
    })?;
    Ok(path)
}

/// The flat symlink to a container's log, which log shippers follow.
pub(crate) fn link_log(shared: &Shared, pod: &Pod, container: &str, id: &str, attempt: u32) {
    let Some(folder) = &shared.config.container_logs_dir else { return };
    let target = shared.log_folder(pod).join(names::log_file(container, attempt));
    let link = folder.join(format!("{}_{}_{container}-{id}.log", names::name(pod), names::namespace(pod)));
    let made = berth_effect::run("log-link-create", || {
        make(folder, 0o755).and_then(|()| match symlink(&target, &link) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other.map_err(at("link", &link)),
        })
    });
    if let Err(error) = made {
        tracing::warn!(%error, "no flat link to a container's log");
    }
}

/// Removes a container instance's log with its link and its termination message.
pub(crate) fn clear_container(shared: &Shared, pod: &Pod, container: &str, id: &str, attempt: u32) {
    let log = shared.log_folder(pod).join(names::log_file(container, attempt));
    let message = names::termination_file(&shared.config.root_dir, names::uid(pod), container, attempt);
    let link = shared
        .config
        .container_logs_dir
        .as_ref()
        .map(|folder| folder.join(format!("{}_{}_{container}-{id}.log", names::name(pod), names::namespace(pod))));
    berth_effect::run("container-files-remove", || {
        for path in [Some(log), Some(message), link].into_iter().flatten() {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "a container's file stays");
                }
                _ => {}
            }
        }
    });
}

/// Removes the pod's folders, logs and links. The pod's own folder goes last: as long as it is there, a restarted agent
/// knows that something is left.
pub(crate) fn clear(shared: &Shared, pod: &Pod) -> Result<(), FileError> {
    let uid = names::uid(pod);
    let folder = names::pod_folder(&shared.config.root_dir, uid);
    let logs = log_folders(shared, pod);
    berth_effect::run("pod-folders-remove", || {
        for log in &logs {
            clear_links(shared, log);
            gone(fs::remove_dir_all(log)).map_err(at("remove", log))?;
        }
        // Nothing below is removed through a mount: volumes were torn down before.
        let containers = folder.join("containers");
        gone(fs::remove_dir_all(&containers)).map_err(at("remove", &containers))?;
        let hosts = names::hosts_file(&shared.config.root_dir, uid);
        gone(fs::remove_file(&hosts)).map_err(at("remove", &hosts))?;
        // From here on others may have the pod's ids.
        let users = names::users_file(&shared.config.root_dir, uid);
        gone(fs::remove_file(&users)).map_err(at("remove", &users))?;
        gone(fs::remove_dir(&folder)).map_err(at("remove", &folder))
    })
}

/// The pod's log folder; for a leftover of which only the UID is known, by that.
fn log_folders(shared: &Shared, pod: &Pod) -> Vec<PathBuf> {
    if !names::name(pod).is_empty() {
        return vec![shared.log_folder(pod)];
    }
    let suffix = format!("_{}", names::uid(pod));
    let entries = fs::read_dir(&shared.config.pod_logs_dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(&suffix)).map(|entry| entry.path()).collect()
}

fn clear_links(shared: &Shared, log: &Path) {
    let Some(folder) = &shared.config.container_logs_dir else { return };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(log)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn gone(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
