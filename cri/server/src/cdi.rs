//! The CDI specifications of the node.

use std::fs;
use std::path::{Path, PathBuf};

use berth_cri_core::cdi::{Found, MAX_ALL, MAX_SPEC, MAX_SPECS, SpecFile};
use berth_cri_proto::v1 as cri;

use crate::places::text;

/// Reads what is there, if the configuration asks for such devices at all. What can't be read is part of the answer: it
/// matters only where a device is missing.
pub(crate) fn find(folders: &[PathBuf], config: &cri::ContainerConfig) -> Found {
    let mut found = Found { folders: folders.iter().map(|folder| text(folder)).collect(), files: Vec::new() };
    if config.cdi_devices.is_empty() {
        return found;
    }
    let mut left = MAX_ALL;
    for (number, folder) in folders.iter().enumerate() {
        // Most nodes lack one of them, or both.
        let Ok(entries) = fs::read_dir(folder) else { continue };
        let mut paths: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path()).filter(|path| is_spec(path)).collect();
        paths.sort();
        for (index, path) in paths.iter().take(MAX_SPECS + 1).enumerate() {
            let contents = if index < MAX_SPECS {
                read(path, left.min(MAX_SPEC))
            } else {
                Err(format!("there are more than {MAX_SPECS}"))
            };
            left = left.saturating_sub(contents.as_ref().map_or(0, |contents| contents.len() as u64));
            found.files.push(SpecFile { path: text(path), folder: number, text: contents });
        }
    }
    found
}

fn is_spec(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == "json" || kind == "yaml")
}

fn read(path: &Path, limit: u64) -> Result<String, String> {
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(|error| error.to_string())?.is_file() {
        return Err("it is no file".to_owned());
    }
    let bytes = berth_effect::record::read(path, limit).map_err(|error| error.to_string())?;
    String::from_utf8(bytes.unwrap_or_default()).map_err(|_| "it is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_specifications_are_named_and_cost_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a.json"), "{}").expect("file");
        fs::write(path("b.yaml"), vec![b'x'; usize::try_from(MAX_SPEC).expect("fits") + 1]).expect("file");
        fs::write(path("c.json"), [0xff]).expect("file");
        fs::write(path("notes.txt"), "no specification").expect("file");
        std::os::unix::fs::symlink(path("nowhere"), path("d.json")).expect("link");
        assert!(std::process::Command::new("mkfifo").arg(path("e.yaml")).status().expect("mkfifo").success());
        let folders = [folder.path().join("missing"), folder.path().to_path_buf()];
        let device = cri::CdiDevice { name: "v/c=a".into() };
        let config = cri::ContainerConfig { cdi_devices: vec![device], ..Default::default() };
        let found = find(&folders, &config);
        let files: Vec<_> = found.files.iter().map(|file| (file.folder, file.text.as_deref())).collect();
        assert_eq!(files[0], (1, Ok("{}")));
        let reasons: Vec<_> = files[1..].iter().map(|(_, text)| text.expect_err("refused")).collect();
        assert_eq!(reasons.len(), 4, "{reasons:?}");
        for (reason, part) in reasons.iter().zip(["larger than", "not UTF-8", "No such file", "no file"]) {
            assert!(reason.contains(part), "{reason}");
        }
        assert_eq!(find(&folders, &cri::ContainerConfig::default()).files, []);
        let large = tempfile::tempdir().expect("folder");
        for number in 10..30 {
            fs::write(large.path().join(format!("{number}.json")), vec![b'x'; 1 << 20]).expect("file");
        }
        let taken = find(&[large.path().to_path_buf()], &config).files.iter().filter(|file| file.text.is_ok()).count();
        assert_eq!(taken, 16, "all of them together are bounded too");
        let many = tempfile::tempdir().expect("folder");
        for number in 0..MAX_SPECS + 3 {
            fs::write(many.path().join(format!("{number}.json")), "{}").expect("file");
        }
        let found = find(&[many.path().to_path_buf()], &config).files;
        assert_eq!((found.len(), found.iter().filter(|file| file.text.is_err()).count()), (MAX_SPECS + 1, 1));
    }
}
