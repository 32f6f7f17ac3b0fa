//! `hostPath`: something of the host's own, checked against the type that the pod expects. Messages are the kubelet's.

use std::fs::{self, DirBuilder, File, FileType};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Checks `path` against `kind`, making it where the type says so. The error is a sentence.
pub(crate) fn check(path: &str, kind: &str) -> Result<(), String> {
    let (matches, expected): (fn(FileType) -> bool, &str) = match kind {
        "" => return Ok(()),
        "DirectoryOrCreate" | "Directory" => (|t| t.is_dir(), "directory"),
        "FileOrCreate" | "File" => (|t| t.is_file(), "file"),
        "Socket" => (|t| t.is_socket(), "socket file"),
        "CharDevice" => (|t| t.is_char_device(), "character device"),
        "BlockDevice" => (|t| t.is_block_device(), "block device"),
        other => return Err(format!("{other} is an invalid volume type")),
    };
    let missing = matches!(fs::metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound);
    if missing && kind.ends_with("OrCreate") {
        return create(Path::new(path), kind == "DirectoryOrCreate").map_err(|error| format!("{path}: {error}"));
    }
    match fs::metadata(path) {
        Ok(metadata) if matches(metadata.file_type()) => Ok(()),
        Ok(metadata) => Err(format!(
            "hostPath type check failed: {path} is not a {expected}, it's a {}",
            name(metadata.file_type())
        )),
        Err(error) => Err(format!(
            "hostPath type check failed, {path} is not a {expected}, unable to determine its type: {error}"
        )),
    }
}

/// The host keeps what is made here: the pod asked for it to be there, not to have it removed.
fn create(path: &Path, folder: bool) -> io::Result<()> {
    berth_effect::run("volume-host-path-create", || {
        if folder {
            DirBuilder::new().recursive(true).mode(0o755).create(path)
        } else {
            File::options().append(true).create(true).mode(0o644).open(path).map(drop)
        }
    })
}

fn name(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "Directory"
    } else if kind.is_file() {
        "File"
    } else if kind.is_socket() {
        "Socket"
    } else if kind.is_char_device() {
        "CharDevice"
    } else if kind.is_block_device() {
        "BlockDevice"
    } else {
        "file of another type"
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn every_type_is_told_apart() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        fs::write(at("file"), "").expect("file");
        let _socket = UnixListener::bind(at("socket")).expect("socket");
        let here = folder.path().to_string_lossy().into_owned();

        for (path, kind) in [
            (&here, "Directory"),
            (&here, "DirectoryOrCreate"),
            (&at("file"), "File"),
            (&at("file"), "FileOrCreate"),
            (&at("socket"), "Socket"),
            (&"/dev/null".to_owned(), "CharDevice"),
            (&at("absent"), ""),
            (&at("made/deep"), "DirectoryOrCreate"),
            (&at("made/file"), "FileOrCreate"),
        ] {
            assert_eq!(check(path, kind), Ok(()), "{path} {kind}");
        }
        assert!(Path::new(&at("made/deep")).is_dir());
        assert!(Path::new(&at("made/file")).is_file());

        for (path, kind, says) in [
            (at("file"), "Directory", "is not a directory, it's a File"),
            (here.clone(), "FileOrCreate", "is not a file, it's a Directory"),
            (at("absent"), "File", "is not a file, unable to determine its type"),
            ("/dev/null".to_owned(), "BlockDevice", "is not a block device, it's a CharDevice"),
            (here.clone(), "Socket", "is not a socket file, it's a Directory"),
            (here.clone(), "Sokcet", "Sokcet is an invalid volume type"),
        ] {
            let error = check(&path, kind).expect_err(kind);
            assert!(error.contains(says), "{error}");
        }
    }
}
