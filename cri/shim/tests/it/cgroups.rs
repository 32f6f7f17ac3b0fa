//! A cgroup of a test's own, in the hierarchies that the machine has.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// Removed at the end, when nothing may be in it any more.
#[derive(Debug)]
pub(crate) struct Cgroups {
    /// One folder for each controller that was asked for; none on pure v2.
    pub(crate) v1: Vec<PathBuf>,
    /// The folder in the v2 tree, where there is one.
    pub(crate) v2: Option<PathBuf>,
}

/// Whether the v2 tree is all that the machine has.
pub(crate) fn is_pure_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

impl Cgroups {
    /// Makes them, with a v1 folder for each of these controllers.
    pub(crate) fn make(name: &str, controllers: &[&str]) -> Self {
        let name = format!("berth-test-shim-{name}-{}", std::process::id());
        let root = Path::new(ROOT);
        let (v1, v2) = if is_pure_v2() {
            (Vec::new(), Some(root.join(&name)))
        } else {
            let v2 = root.join("unified");
            let v1 = controllers.iter().map(|controller| root.join(controller).join(&name));
            (v1.collect(), v2.join("cgroup.procs").exists().then(|| v2.join(&name)))
        };
        let made = Self { v1, v2 };
        for folder in made.folders() {
            fs::create_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        }
        made
    }

    pub(crate) fn folders(&self) -> impl Iterator<Item = &PathBuf> {
        self.v1.iter().chain(&self.v2)
    }

    /// `tasks` of each v1 folder.
    pub(crate) fn tasks(&self) -> Vec<OwnedFd> {
        let open = |folder: &PathBuf| File::options().write(true).open(folder.join("tasks")).expect("tasks").into();
        self.v1.iter().map(open).collect()
    }

    /// The v2 folder itself.
    pub(crate) fn folder(&self) -> Option<OwnedFd> {
        self.v2.as_ref().map(|folder| File::open(folder).expect("a folder").into())
    }

    /// What is in each of them.
    pub(crate) fn procs(&self) -> Vec<String> {
        self.folders().map(|folder| fs::read_to_string(folder.join("cgroup.procs")).expect("procs")).collect()
    }

    /// Stops what is in it and what comes; or lets it go on.
    pub(crate) fn freeze(&self, frozen: bool) {
        let (file, word) = match self.v1.iter().map(|folder| folder.join("freezer.state")).find(|file| file.exists()) {
            Some(file) => (file, if frozen { "FROZEN" } else { "THAWED" }),
            None => {
                let v2 = self.v2.as_ref().expect("a freezer");
                (v2.join("cgroup.freeze"), if frozen { "1" } else { "0" })
            }
        };
        fs::write(file, word).expect("freeze");
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for folder in self.folders() {
            if let Err(error) = fs::remove_dir(folder)
                && !std::thread::panicking()
            {
                panic!("{} is not empty: {error}", folder.display());
            }
        }
    }
}
