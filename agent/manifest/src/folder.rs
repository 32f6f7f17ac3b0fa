//! A folder of manifests, or one file, that is watched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::pods::{self, Manifest, Problem};
use crate::yaml::LONGEST;

/// How often the folder is read even when nothing was heard (the kubelet's fileCheckFrequency).
const CHECK: Duration = Duration::from_secs(20);
/// How often a folder that is not there is looked for.
const CHECK_MISSING: Duration = Duration::from_secs(1);
/// Editors write in several steps; one read answers them all.
const SETTLE: Duration = Duration::from_millis(50);

/// The pods of a folder at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// By file name, then in the order of the file.
    pub pods: Vec<Pod>,
    /// One line each; their files' pods are as they were when last readable.
    pub problems: Vec<Problem>,
}

/// A source of static pods.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    node_name: String,
    /// What each file held when it was last readable.
    last: BTreeMap<PathBuf, Vec<Manifest>>,
}

impl Folder {
    /// A source that reads `path` (a folder, or one file) for the node `node_name`. Nothing is read yet.
    pub fn new(path: impl Into<PathBuf>, node_name: impl Into<String>) -> Self {
        Self { path: path.into(), node_name: node_name.into(), last: BTreeMap::new() }
    }

    /// Reads everything once.
    ///
    /// A file that can't be read or understood is a problem and keeps the pods that it held before: a half-written edit
    /// stops nothing. A file that is gone takes its pods with it.
    pub fn read(&mut self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let files = match self.files(&mut snapshot.problems) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.last.clear();
                snapshot.problems.push(Problem::file(&self.path, "is not there; it is read once it is"));
                return snapshot;
            }
            Err(error) => {
                snapshot.problems.push(Problem::file(&self.path, error.to_string()));
                Vec::new()
            }
        };
        let mut seen = BTreeMap::new();
        let mut names: BTreeMap<(String, String), PathBuf> = BTreeMap::new();
        for file in files {
            let manifests = match self.read_file(&file) {
                Ok(Some(manifests)) => manifests,
                Ok(None) => continue,
                Err(mut problem) => {
                    let before = self.last.remove(&file).unwrap_or_default();
                    if !before.is_empty() {
                        problem.reason.push_str(" (its pods stay as they were)");
                    }
                    snapshot.problems.push(problem);
                    before
                }
            };
            for manifest in &manifests {
                let metadata = &manifest.pod.metadata;
                let name = (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
                match names.get(&name) {
                    Some(first) => snapshot.problems.push(Problem {
                        file: file.clone(),
                        line: Some(manifest.line),
                        field: Some("metadata.name".to_owned()),
                        reason: format!("pod {}/{} is already defined in {}", name.0, name.1, first.display()),
                    }),
                    None => {
                        names.insert(name, file.clone());
                        snapshot.pods.push(manifest.pod.clone());
                    }
                }
            }
            seen.insert(file, manifests);
        }
        self.last = seen;
        snapshot
    }

    /// Sends a snapshot now and after every change, until nobody listens.
    ///
    /// # Errors
    /// When the kernel can't watch files at all.
    pub async fn watch(mut self, sender: mpsc::Sender<Snapshot>) -> io::Result<()> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        #[expect(deprecated, reason = "unsound for types that swap their descriptor; an OwnedFd does not")]
        let fd = AsyncFd::new(fd)?;
        let mut sent: Option<Snapshot> = None;
        loop {
            // Watch before reading, so that no change falls between.
            let watched = self.add_watch(&fd);
            let snapshot = self.read();
            if sent.as_ref() != Some(&snapshot) {
                if sender.send(snapshot.clone()).await.is_err() {
                    return Ok(());
                }
                sent = Some(snapshot);
            }
            let check = if watched { CHECK } else { CHECK_MISSING };
            tokio::select! {
                heard = heard(&fd) => {
                    heard?;
                    tokio::time::sleep(SETTLE).await;
                    drain(&fd);
                }
                () = tokio::time::sleep(check) => {}
                () = sender.closed() => return Ok(()),
            }
        }
    }

    fn add_watch(&self, fd: &AsyncFd<rustix::fd::OwnedFd>) -> bool {
        use inotify::WatchFlags as W;
        let flags = W::CLOSE_WRITE
            | W::CREATE
            | W::DELETE
            | W::MOVED_FROM
            | W::MOVED_TO
            | W::DELETE_SELF
            | W::MOVE_SELF
            | W::ATTRIB;
        // Editors replace files; a single file is watched through its folder.
        let at = if self.path.is_file() { parent(&self.path) } else { self.path.as_path() };
        inotify::add_watch(fd, at, flags).is_ok()
    }

    fn files(&self, problems: &mut Vec<Problem>) -> io::Result<Vec<PathBuf>> {
        if fs::metadata(&self.path)?.is_file() {
            return Ok(vec![self.path.clone()]);
        }
        let mut files = BTreeSet::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let path = entry.path();
            if is_ignored(&entry.file_name().to_string_lossy()) {
                continue;
            }
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => drop(files.insert(path)),
                Ok(metadata) if metadata.is_dir() => {
                    problems.push(Problem::file(&path, "is a folder; folders inside are not read"))
                }
                Ok(_) => problems.push(Problem::file(&path, "is not a file")),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => problems.push(Problem::file(&path, error.to_string())),
            }
        }
        problems.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(files.into_iter().collect())
    }

    /// `None` when the file vanished meanwhile.
    fn read_file(&self, file: &Path) -> Result<Option<Vec<Manifest>>, Problem> {
        let mut bytes = Vec::new();
        let limit = u64::try_from(LONGEST).unwrap_or(u64::MAX) + 1;
        match fs::File::open(file).and_then(|open| open.take(limit).read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Problem::file(file, error.to_string())),
        }
        let text = String::from_utf8(bytes).map_err(|_| Problem::file(file, "is not UTF-8"))?;
        pods::read(file, &text, &self.node_name).map(Some)
    }
}

/// Hidden files, and what editors leave beside the file they edit.
fn is_ignored(name: &str) -> bool {
    name.starts_with('.')
        || name.ends_with('~')
        || [".swp", ".swo", ".swx", ".tmp", ".bak"].iter().any(|suffix| name.ends_with(suffix))
        || (name.starts_with('#') && name.ends_with('#'))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

async fn heard(fd: &AsyncFd<rustix::fd::OwnedFd>) -> io::Result<()> {
    let mut guard = fd.readable().await?;
    guard.clear_ready();
    drain(fd);
    Ok(())
}

/// Takes all events off the queue; which they were does not matter, everything is read anew.
fn drain(fd: &AsyncFd<rustix::fd::OwnedFd>) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(fd.get_ref(), &mut buffer);
    while reader.next().is_ok() {}
}

#[cfg(test)]
mod tests;
