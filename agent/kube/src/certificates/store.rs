//! Where pairs lie: as the kubelet leaves them, so that either can take over from the other.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use berth_effect::record;
use k8s_openapi::jiff::Timestamp;

use super::{CertificateError, Pair};

/// A pair is a few KiB; a chain may be longer.
const LONGEST: u64 = 1 << 20;
/// Pairs that are kept beside the current one. The kubelet keeps all of them for ever.
const KEPT: usize = 4;

/// A folder of pairs: `NAME-YYYY-MM-DD-HH-MM-SS.pem` each (UTC, certificate then key, mode 0600), and the link
/// `NAME-current.pem` to the one that counts.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
    name: String,
}

impl Store {
    /// The kubelet's client certificates in `dir` (`/var/lib/kubelet/pki`), which is made if need be.
    ///
    /// # Errors
    /// [`CertificateError::File`] when the folder can't be made or read.
    pub fn open(dir: &Path) -> Result<Self, CertificateError> {
        Self::open_named(dir, "kubelet-client")
    }

    /// As [`Store::open`] for another `name` (`kubelet-server`).
    ///
    /// # Errors
    /// As there.
    pub fn open_named(dir: &Path, name: &str) -> Result<Self, CertificateError> {
        let dir = std::path::absolute(dir).map_err(|source| file(dir, source))?;
        if !dir.is_dir() {
            let made = berth_effect::run("certificates-folder-make", || {
                fs::DirBuilder::new().recursive(true).mode(0o755).create(&dir)
            });
            made.map_err(|source| file(&dir, source))?;
        }
        let store = Self { dir, name: name.to_owned() };
        store.recover()?;
        Ok(store)
    }

    /// The link to the pair that counts, for a kubeconfig.
    pub fn current_path(&self) -> PathBuf {
        self.path("current.pem")
    }

    /// The pair that counts; `None` when there is none yet.
    ///
    /// # Errors
    /// A file that can't be read or understood.
    pub fn current(&self) -> Result<Option<Pair>, CertificateError> {
        let path = self.current_path();
        let Some(bytes) = record::read(&path, LONGEST).map_err(|source| file(&path, source))? else { return Ok(None) };
        let mut pair = Pair::in_file(&path, &String::from_utf8_lossy(&bytes))?;
        pair.obtained = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
        Ok(Some(pair))
    }

    /// Keeps `pair` and makes it the one that counts: whole or not at all, flushed. Returns its file.
    ///
    /// # Errors
    /// [`CertificateError::File`]; the pair before it counts then.
    pub fn write(&self, pair: &Pair) -> Result<PathBuf, CertificateError> {
        self.write_at(pair, SystemTime::now())
    }

    fn write_at(&self, pair: &Pair, now: SystemTime) -> Result<PathBuf, CertificateError> {
        let time = Timestamp::try_from(now).unwrap_or(Timestamp::UNIX_EPOCH);
        let path = self.path(&format!("{}.pem", time.strftime("%Y-%m-%d-%H-%M-%S")));
        record::write_durable(&path, pair.to_pem().as_bytes()).map_err(|source| file(&path, source))?;
        self.link(&path)?;
        self.prune(&path);
        Ok(path)
    }

    /// Replaces the link at once: there is no moment without one.
    fn link(&self, to: &Path) -> Result<(), CertificateError> {
        let (current, updated) = (self.current_path(), self.path("updated.pem"));
        match fs::symlink_metadata(&current) {
            Ok(metadata) if !metadata.file_type().is_symlink() => {
                let reason = "is a file where a link is expected: move it away";
                return Err(file(&current, io::Error::new(io::ErrorKind::AlreadyExists, reason)));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(file(&current, error)),
        }
        record::remove(&updated).map_err(|source| file(&updated, source))?;
        let linked = berth_effect::run("certificate-switch", || {
            symlink(to, &updated)?;
            fs::rename(&updated, &current)?;
            fs::File::open(&self.dir)?.sync_all()
        });
        linked.map_err(|source| file(&current, source))
    }

    /// A kubelet that died while it switched removes the link before it renames the next one.
    fn recover(&self) -> Result<(), CertificateError> {
        let (current, updated) = (self.current_path(), self.path("updated.pem"));
        let is_link = |path: &Path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_symlink());
        if fs::symlink_metadata(&current).is_ok() || !is_link(&updated) {
            return Ok(());
        }
        berth_effect::run("certificate-switch", || fs::rename(&updated, &current))
            .map_err(|source| file(&current, source))
    }

    /// Removes all but the newest pairs and what a crash left half-written. That one can't be removed stops nothing.
    fn prune(&self, newest: &Path) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let (ours, rest): (Vec<_>, Vec<_>) = names.partition(|name| self.is_pair(name));
        let mut ours: Vec<_> = ours.into_iter().map(|name| self.dir.join(name)).filter(|path| path != newest).collect();
        ours.sort();
        ours.truncate(ours.len().saturating_sub(KEPT));
        let own = format!("{}{}-", record::TEMPORARY_PREFIX, std::process::id());
        let torn =
            rest.into_iter().filter(|name| name.starts_with(record::TEMPORARY_PREFIX) && !name.starts_with(&own));
        for path in ours.into_iter().chain(torn.map(|name| self.dir.join(name))) {
            let _ = record::remove(&path);
        }
    }

    /// Whether a file's name is that of a pair of this store.
    fn is_pair(&self, name: &str) -> bool {
        let date = name.strip_prefix(&self.name).and_then(|rest| rest.strip_prefix('-')?.strip_suffix(".pem"));
        date.is_some_and(|date| {
            date.len() == 19
                && date.bytes().enumerate().all(|(at, byte)| {
                    if matches!(at, 4 | 7 | 10 | 13 | 16) { byte == b'-' } else { byte.is_ascii_digit() }
                })
        })
    }

    /// A file of this store.
    pub(crate) fn path(&self, rest: &str) -> PathBuf {
        self.dir.join(format!("{}-{rest}", self.name))
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

pub(crate) fn file(path: &Path, cause: io::Error) -> CertificateError {
    CertificateError::File { path: path.to_path_buf(), cause }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, UNIX_EPOCH};

    use super::super::pair::tests::pair;
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .expect("lists")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_newest_pair_counts_and_few_are_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let pki = dir.path().join("kubelet/pki");
        let store = Store::open(&pki).expect("opens");
        assert_eq!(store.current().expect("nothing yet"), None);
        let mut last = None;
        for number in 0..7 {
            let pair = pair(&[], 60 + number);
            let at = UNIX_EPOCH + Duration::from_secs(1_795_500_000 + number);
            let path = store.write_at(&pair, at).expect("writes");
            assert_eq!(fs::metadata(&path).expect("file").permissions().mode() & 0o777, 0o600);
            assert_eq!(store.current().expect("reads").expect("a pair").not_after(), pair.not_after());
            last = Some(path);
        }
        assert_eq!(fs::read_link(store.current_path()).ok(), last);
        assert_eq!(names(&pki).len(), 1 + 1 + KEPT, "{:?}", names(&pki));
        assert_eq!(names(&pki).last().map(String::as_str), Some("kubelet-client-current.pem"));
        assert_eq!(names(&pki)[0], "kubelet-client-2026-11-24-06-00-02.pem");
    }

    #[test]
    fn an_interrupted_switch_is_finished_and_files_of_others_stay() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(dir.path()).expect("opens");
        let path = store.write(&pair(&[], 60)).expect("writes");
        fs::write(dir.path().join("kubelet.crt"), "x").expect("writes");
        fs::write(dir.path().join(".tmp-1-0"), "half").expect("writes");
        fs::remove_file(store.current_path()).expect("removes");
        symlink(&path, store.path("updated.pem")).expect("links");
        let store = Store::open(dir.path()).expect("opens again");
        assert!(store.current().expect("reads").is_some());
        store.write(&pair(&[], 61)).expect("writes");
        assert!(dir.path().join("kubelet.crt").exists() && !dir.path().join(".tmp-1-0").exists());

        fs::remove_file(store.current_path()).expect("removes");
        fs::write(store.current_path(), "mine").expect("writes");
        let error = store.write(&pair(&[], 62)).expect_err("not a link").to_string();
        assert!(error.contains("kubelet-client-current.pem: is a file"), "{error}");
        assert!(
            store.current().expect_err("no pair").to_string().contains("kubelet-client-current.pem: the certificate")
        );
    }
}
