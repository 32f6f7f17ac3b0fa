//! Back to nothing.

use std::fs;
use std::io;
use std::path::Path;

use crate::{TeardownError, layout, tmpfs};

/// Unmounts and removes everything under `ROOT/pods/UID/volumes` and `volume-subpaths`, and `ROOT/pods/UID` itself when nothing else is in it.
///
/// Works from whatever a crash left, for it asks the kernel's mount table and not a book of ours; a pod that never had
/// volumes is fine. Blocks while a large `emptyDir` is deleted.
///
/// # Errors
/// Everything that could not be undone. Nothing is deleted through a mount that is still there.
pub fn teardown(uid: &str, root: &Path) -> Result<(), Vec<TeardownError>> {
    if !layout::is_component(uid) {
        return Ok(());
    }
    // Mount points are compared with the kernel's spelling of the path.
    let root = match root.canonicalize() {
        Ok(root) => root,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(vec![TeardownError { action: "find", path: root.to_path_buf(), source }]),
    };
    let pod = layout::pod(&root, uid);
    let volumes = pod.join("volumes");
    let mut errors = Vec::new();
    let mut note = |action: &'static str, path: &Path, outcome: io::Result<()>| {
        if let Err(source) = outcome {
            errors.push(TeardownError { action, path: path.to_path_buf(), source });
        }
    };
    // Parts of volumes before the volumes themselves.
    for folder in [&layout::sub_paths(&root, uid), &volumes] {
        match tmpfs::below(folder) {
            Ok(points) => {
                for point in points {
                    note("unmount", &point, tmpfs::unmount(&point));
                }
            }
            Err(error) => note("read the mounts below", folder, Err(error)),
        }
        match tmpfs::below(folder) {
            Ok(points) if points.is_empty() => note("remove", folder, remove_tree(folder)),
            Ok(_) => note("remove", folder, Err(io::Error::other("something is still mounted in it"))),
            Err(error) => note("read the mounts below", folder, Err(error)),
        }
    }
    match fs::remove_dir(&pod) {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {}
        Err(error) => note("remove", &pod, Err(error)),
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// The pods that have a folder below `root`: what a restarted agent compares with the pods that it knows.
///
/// # Errors
/// What the file system answers.
pub fn leftovers(root: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(root.join("pods")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn remove_tree(path: &Path) -> io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    berth_effect::run("volume-remove", || match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    })
}
