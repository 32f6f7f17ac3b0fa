//! Files that change all at once: a folder whose content is replaced by one rename.
//!
//! ```text
//! VOLUME/..2026_11_24_04_15_00.000000012/token     the content, under the time it was written
//! VOLUME/..data -> ..2026_11_24_04_15_00.000000012 swapped by rename(2)
//! VOLUME/token  -> ..data/token                    what the container opens
//! ```
//!
//! The names are the kubelet's; programs watch `..data` to learn of an update. A crash leaves at most a folder that
//! `..data` does not point at, or a `..data_tmp`: the next write removes both.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::ownership;

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";
/// Linux: NAME_MAX and PATH_MAX.
const LONGEST_NAME: usize = 255;
const LONGEST_PATH: usize = 4096;

/// One file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Projection {
    pub(crate) data: Vec<u8>,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Owner, when it is not root.
    pub(crate) owner: Option<u32>,
}

/// Relative path to file.
pub(crate) type Payload = BTreeMap<String, Projection>;

/// Makes the content of `target` equal to `payload`. Does nothing (and answers false) when it already is.
pub(crate) fn write(target: &Path, payload: &Payload, fs_group: Option<u32>) -> io::Result<bool> {
    payload.keys().try_for_each(|path| check_path(path))?;
    let current = current(target);
    if let Some(current) = &current
        && is_equal(&target.join(current), payload)
        && visible(target)? == first_components(payload)
    {
        sweep(target, Some(current))?;
        return Ok(false);
    }
    berth_effect::run("volume-write", || replace(target, payload, fs_group))?;
    Ok(true)
}

/// What `..data` points at, if it is there and well formed.
pub(crate) fn current(target: &Path) -> Option<PathBuf> {
    let link = fs::read_link(target.join(DATA)).ok()?;
    (link.components().count() == 1 && target.join(&link).is_dir()).then_some(link)
}

fn replace(target: &Path, payload: &Payload, fs_group: Option<u32>) -> io::Result<()> {
    let folder = make_folder(target)?;
    let filled = fill(&target.join(&folder), payload, fs_group).and_then(|()| {
        for name in first_components(payload) {
            let link = target.join(&name);
            match symlink(Path::new(DATA).join(&name), &link) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
        }
        let next = target.join(DATA_NEXT);
        remove_if_there(&next)?;
        symlink(&folder, &next)?;
        fs::rename(&next, target.join(DATA))
    });
    if let Err(error) = filled {
        let _ = fs::remove_dir_all(target.join(&folder));
        return Err(error);
    }
    let wanted = first_components(payload);
    for name in visible(target)?.difference(&wanted) {
        remove_if_there(&target.join(name))?;
    }
    sweep(target, Some(&folder))
}

/// Removes what an earlier write or a crash left: every `..` entry but the current ones.
fn sweep(target: &Path, current: Option<&Path>) -> io::Result<()> {
    for entry in fs::read_dir(target)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") || name == DATA || current.is_some_and(|c| c.as_os_str() == entry.file_name()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

fn make_folder(target: &Path) -> io::Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut nanos = now.subsec_nanos();
    loop {
        let name = PathBuf::from(format!("..{}.{nanos:09}", civil(now.as_secs())));
        match DirBuilder::new().mode(0o755).create(target.join(&name)) {
            Ok(()) => {
                // The umask must not decide who may enter.
                fs::set_permissions(target.join(&name), Permissions::from_mode(0o755))?;
                return Ok(name);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => nanos = nanos.wrapping_add(1),
            Err(error) => return Err(error),
        }
    }
}

/// `YYYY_MM_DD_hh_mm_ss`, UTC (days to civil date after Howard Hinnant's published algorithm).
fn civil(seconds: u64) -> String {
    let days = i64::try_from(seconds / 86_400).unwrap_or(0) + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let time = seconds % 86_400;
    format!("{year:04}_{month:02}_{day:02}_{:02}_{:02}_{:02}", time / 3600, time / 60 % 60, time % 60)
}

fn fill(folder: &Path, payload: &Payload, fs_group: Option<u32>) -> io::Result<()> {
    for (path, file) in payload {
        let full = folder.join(path);
        if let Some(parent) = full.parent() {
            let mut below = folder.to_path_buf();
            for component in parent.strip_prefix(folder).unwrap_or(parent).components() {
                below.push(component);
                if !below.is_dir() {
                    fs::create_dir(&below)?;
                    fs::set_permissions(&below, Permissions::from_mode(0o755))?;
                }
            }
        }
        let mut out = File::options().write(true).create_new(true).mode(0o600).open(&full)?;
        out.write_all(&file.data)?;
        out.set_permissions(Permissions::from_mode(file.mode & 0o777))?;
        if let Some(owner) = file.owner {
            std::os::unix::fs::fchown(&out, Some(owner), None)?;
        }
    }
    match fs_group {
        Some(group) => ownership::apply(folder, group, true),
        None => Ok(()),
    }
}

/// Whether `folder` holds exactly the files of `payload`, with their content. Modes come from the pod, which can't change
/// them, so they need no second look.
fn is_equal(folder: &Path, payload: &Payload) -> bool {
    fn files(folder: &Path, prefix: &str, found: &mut BTreeSet<String>) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                files(&entry.path(), &format!("{path}/"), found)?;
            } else {
                found.insert(path);
            }
        }
        Ok(())
    }
    let mut found = BTreeSet::new();
    files(folder, "", &mut found).is_ok()
        && found.iter().eq(payload.keys())
        && payload.iter().all(|(path, file)| fs::read(folder.join(path)).is_ok_and(|data| data == file.data))
}

fn first_components(payload: &Payload) -> BTreeSet<String> {
    payload.keys().map(|path| path.split('/').next().unwrap_or(path).to_owned()).collect()
}

/// The links that containers see.
fn visible(target: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(target)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") {
            names.insert(name);
        }
    }
    Ok(names)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn check_path(path: &str) -> io::Result<()> {
    let refuse =
        |reason: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path {path:?}: {reason}")));
    if path.is_empty() {
        return refuse("must not be empty");
    }
    if path.starts_with('/') {
        return refuse("must be relative");
    }
    if path.len() > LONGEST_PATH || path.split('/').any(|part| part.len() > LONGEST_NAME) {
        return refuse("too long");
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) || path.contains('\0') {
        return refuse("must not contain '..', '.' or empty parts");
    }
    if path.starts_with("..") {
        return refuse("must not start with '..'");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
