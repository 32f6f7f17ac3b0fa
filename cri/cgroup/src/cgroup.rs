//! One cgroup: the same path in every hierarchy.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::CgroupError;
use crate::host::{Host, Layout};
use crate::{Resources, files, v1, v2};

/// A cgroup by its path from the root of the hierarchies. Holding one keeps nothing alive.
#[derive(Debug, Clone)]
pub struct Cgroup {
    pub(crate) host: Host,
    /// Clean: absolute, no empty parts, no dots.
    pub(crate) path: String,
}

/// Descriptors with which another process enters a cgroup.
#[derive(Debug, Default)]
pub struct Handles {
    /// `tasks` of each v1 hierarchy, for writing "0", which moves the writing thread.
    ///
    /// Not `cgroup.procs`: the kernel lets a thread move itself without the lock that moving a process takes, and taking
    /// that lock waits for an RCU grace period (8 ms here, against 0.04 ms; since Linux 5.16, the same before).
    pub tasks: Vec<OwnedFd>,
    /// The folder in the v2 tree, for `CLONE_INTO_CGROUP`.
    pub v2: Option<OwnedFd>,
}

/// Where a process enters a cgroup.
#[derive(Debug, Clone)]
pub struct Entrances {
    /// `tasks` of each v1 hierarchy.
    pub tasks: Vec<PathBuf>,
    /// The folder in the v2 tree.
    pub v2: Option<PathBuf>,
}

impl Host {
    /// The cgroup at `path`, whether it exists or not.
    ///
    /// # Errors
    /// [`CgroupError::Path`] when it is not a plain absolute path below the root.
    pub fn open(&self, path: &str) -> Result<Cgroup, CgroupError> {
        Ok(Cgroup { host: self.clone(), path: clean(path)? })
    }

    /// Makes the cgroup and its missing parents (one that exists is fine) and limits it.
    ///
    /// On v2 every controller that the machine has is enabled on the way down, so no parent may hold processes.
    ///
    /// # Errors
    /// What the kernel refused, with the file. What was made stays: the caller removes it.
    pub fn create(&self, path: &str, resources: &Resources) -> Result<Cgroup, CgroupError> {
        let cgroup = self.open(path)?;
        berth_effect::run("cgroup-create", || {
            for hierarchy in self.hierarchies() {
                v1::make(hierarchy, &cgroup.path)?;
            }
            if let Some(unified) = &self.inner.unified {
                v2::make(&unified.path, &cgroup.path, self.layout() == Layout::V2)?;
            }
            cgroup.apply(resources)
        })?;
        Ok(cgroup)
    }

    /// The names of the cgroups right below `path`, in any hierarchy.
    pub fn children(&self, path: &str) -> Vec<String> {
        let Ok(path) = clean(path) else { return Vec::new() };
        let folders = self.roots().filter_map(|root| fs::read_dir(root.join(&path[1..])).ok());
        let entries = folders.flat_map(|entries| entries.flatten());
        let names = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let names: std::collections::BTreeSet<_> =
            names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.into_iter().collect()
    }

    /// Those of `path` and its parents that exist in no hierarchy, topmost first.
    ///
    /// # Errors
    /// As [`Host::open`].
    pub fn missing(&self, path: &str) -> Result<Vec<String>, CgroupError> {
        let path = clean(path)?;
        let ends = path.char_indices().skip(1).filter(|(_, c)| *c == '/').map(|(at, _)| at).chain([path.len()]);
        let missing =
            ends.map(|end| &path[..end]).filter(|path| !self.roots().any(|root| root.join(&path[1..]).exists()));
        Ok(missing.map(str::to_owned).collect())
    }
}

impl Cgroup {
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether it exists in any hierarchy.
    pub fn exists(&self) -> bool {
        self.folders().any(|folder| folder.exists())
    }

    /// Changes the limits that are set in `resources`.
    ///
    /// # Errors
    /// What the kernel refused, with the file; what was written before stays.
    pub fn apply(&self, resources: &Resources) -> Result<(), CgroupError> {
        match &self.host.inner.unified {
            Some(unified) if self.host.layout() == Layout::V2 => v2::apply(&self.below(&unified.path), resources),
            _ => v1::apply(self, resources),
        }
    }

    /// What a process needs to enter.
    ///
    /// # Errors
    /// When the cgroup is gone.
    pub fn handles(&self) -> Result<Handles, CgroupError> {
        let mut tasks = Vec::new();
        let entrances = self.entrances();
        for path in entrances.tasks {
            tasks.push(File::options().write(true).open(&path).map_err(CgroupError::io("open", &path))?.into());
        }
        let v2 = match entrances.v2 {
            None => None,
            Some(path) => {
                let flags = i32::try_from(rustix::fs::OFlags::DIRECTORY.bits()).unwrap_or(0);
                let folder = File::options().read(true).custom_flags(flags).open(&path);
                Some(folder.map_err(CgroupError::io("open", &path))?.into())
            }
        };
        Ok(Handles { tasks, v2 })
    }

    /// As [`Cgroup::handles`], by their paths.
    pub fn entrances(&self) -> Entrances {
        Entrances {
            tasks: self.host.hierarchies().iter().map(|one| self.below(&one.path).join("tasks")).collect(),
            v2: self.host.inner.unified.as_ref().map(|unified| self.below(&unified.path)),
        }
    }

    /// The processes in it and in the cgroups below it.
    pub fn procs(&self) -> Vec<i32> {
        let mut pids: Vec<i32> = self
            .folders()
            .flat_map(|folder| files::descendants(&folder).into_iter().chain([folder]).collect::<Vec<_>>())
            .flat_map(|folder| files::procs(&folder))
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// As [`Cgroup::procs`], by one hierarchy's word: what has not been moved out of the others. For counting.
    pub fn members(&self) -> Vec<i32> {
        let folder = self.v2().or_else(|| self.controller("pids")).or_else(|| self.folders().next());
        let Some(folder) = folder else { return Vec::new() };
        let mut pids = files::procs(&folder);
        pids.extend(files::descendants(&folder).iter().flat_map(|below| files::procs(below)));
        pids
    }

    /// Its folder in each hierarchy.
    pub(crate) fn folders(&self) -> impl Iterator<Item = PathBuf> {
        self.host.roots().map(|root| self.below(root))
    }

    /// Its folder in a v1 controller's hierarchy.
    pub(crate) fn controller(&self, name: &str) -> Option<PathBuf> {
        self.host.controller(name).map(|root| self.below(root))
    }

    /// Its folder in the v2 tree, where that holds the controllers.
    pub(crate) fn v2(&self) -> Option<PathBuf> {
        let unified = self.host.inner.unified.as_ref().filter(|_| self.host.layout() == Layout::V2)?;
        Some(self.below(&unified.path))
    }

    pub(crate) fn below(&self, root: &Path) -> PathBuf {
        root.join(&self.path[1..])
    }
}

/// Makes one folder; one that exists is fine.
pub(crate) fn make_folder(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(CgroupError::io("create", path)),
    }
}

fn clean(path: &str) -> Result<String, CgroupError> {
    let refuse = |reason| Err(CgroupError::Path { path: path.to_owned(), reason });
    if !path.starts_with('/') {
        return refuse("is not absolute");
    }
    let mut clean = String::with_capacity(path.len());
    for part in path.split('/').filter(|part| !part.is_empty()) {
        if part == "." || part == ".." || part.contains(['\0', '\n']) {
            return refuse("has a part that is no name");
        }
        clean.push('/');
        clean.push_str(part);
    }
    if clean.is_empty() { refuse("is the root") } else { Ok(clean) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_below_the_root_are_taken() {
        assert_eq!(clean("//a///b/").expect("plain"), "/a/b");
        for bad in ["", "a", "/", "/a/../b", "/./a", "/a\nb"] {
            assert!(clean(bad).is_err(), "{bad:?}");
        }
    }
}
