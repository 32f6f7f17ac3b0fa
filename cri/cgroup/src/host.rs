//! What cgroup file systems the machine has mounted.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::CgroupError;

/// The machine's cgroup mounts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Host {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) layout: Layout,
    pub(crate) hierarchies: Vec<Hierarchy>,
    pub(crate) unified: Option<Unified>,
}

/// How cgroups are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Only cgroup v1 hierarchies.
    V1,
    /// v1 hierarchies hold the controllers; a v2 tree beside them has none.
    Hybrid,
    /// One v2 tree.
    V2,
}

/// A cgroup v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its name under /sys/fs/cgroup, `cpu,cpuacct`.
    pub folder: String,
    /// Where it is mounted.
    pub path: PathBuf,
    /// `cpu`, `cpuacct`; empty for a named hierarchy.
    pub controllers: Vec<String>,
    /// The name of a hierarchy without controllers, `systemd`.
    pub name: Option<String>,
}

/// The v2 tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unified {
    pub(crate) path: PathBuf,
    pub(crate) options: UnifiedOptions,
}

/// Options of the cgroup v2 superblock, which a mount made outside a cgroup namespace must repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UnifiedOptions {
    pub nsdelegate: bool,
    pub memory_recursiveprot: bool,
}

impl Host {
    /// Reads /proc/self/mountinfo.
    ///
    /// # Errors
    /// When it can't be read or holds no cgroup file system.
    pub fn detect() -> Result<Self, CgroupError> {
        let path = Path::new("/proc/self/mountinfo");
        let text = fs::read_to_string(path).map_err(CgroupError::io("read", path))?;
        parse(&text).ok_or(CgroupError::NotMounted)
    }

    pub fn layout(&self) -> Layout {
        self.inner.layout
    }

    /// The v1 hierarchies, in the order in which they are mounted.
    pub fn hierarchies(&self) -> &[Hierarchy] {
        &self.inner.hierarchies
    }

    /// The options of the v2 tree; the default where there is none.
    pub fn unified_options(&self) -> UnifiedOptions {
        self.inner.unified.as_ref().map(|unified| unified.options).unwrap_or_default()
    }

    /// The folder of a v1 controller's hierarchy.
    pub(crate) fn controller(&self, name: &str) -> Option<&Path> {
        let found = self.inner.hierarchies.iter().find(|h| h.controllers.iter().any(|c| c == name));
        found.map(|hierarchy| hierarchy.path.as_path())
    }

    /// The roots of all hierarchies, the v2 tree last.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &Path> {
        let unified = self.inner.unified.iter().map(|unified| unified.path.as_path());
        self.inner.hierarchies.iter().map(|hierarchy| hierarchy.path.as_path()).chain(unified)
    }
}

/// Options of a v1 superblock that are no controllers.
fn is_controller(option: &str) -> bool {
    !option.contains('=') && !matches!(option, "rw" | "ro" | "xattr" | "noprefix" | "clone_children" | "cpuset_v2_mode")
}

pub(crate) fn parse(mountinfo: &str) -> Option<Host> {
    let mut hierarchies: Vec<Hierarchy> = Vec::new();
    let mut unified: Option<Unified> = None;
    for line in mountinfo.lines() {
        let Some((mount, system)) = line.split_once(" - ") else { continue };
        let (Some(point), Some(kind), Some(options)) =
            (mount.split(' ').nth(4), system.split(' ').next(), system.split(' ').nth(2))
        else {
            continue;
        };
        // Mount points elsewhere are bind mounts of somebody's container.
        let path = PathBuf::from(point);
        if !path.starts_with("/sys/fs/cgroup") {
            continue;
        }
        let options = || options.split(',');
        match kind {
            "cgroup2" => {
                let has = |name| options().any(|option| option == name);
                let options =
                    UnifiedOptions { nsdelegate: has("nsdelegate"), memory_recursiveprot: has("memory_recursiveprot") };
                unified = Some(Unified { path, options });
            }
            "cgroup" => {
                let hierarchy = Hierarchy {
                    folder: path.file_name()?.to_string_lossy().into_owned(),
                    path,
                    controllers: options().filter(|option| is_controller(option)).map(str::to_owned).collect(),
                    name: options().find_map(|option| option.strip_prefix("name=")).map(str::to_owned),
                };
                let same = |h: &Hierarchy| h.controllers == hierarchy.controllers && h.name == hierarchy.name;
                if !hierarchies.iter().any(same) {
                    hierarchies.push(hierarchy);
                }
            }
            _ => {}
        }
    }
    let layout = match (hierarchies.iter().any(|h| !h.controllers.is_empty()), &unified) {
        (true, None) => Layout::V1,
        (true, Some(_)) => Layout::Hybrid,
        (false, Some(_)) => Layout::V2,
        (false, None) => return None,
    };
    Some(Host { inner: Arc::new(Inner { layout, hierarchies, unified }) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_machine_is_recognised() {
        let host = parse(
            "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n\
             99 31 0:29 / /var/x/sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n",
        )
        .expect("cgroups");
        assert_eq!(host.layout(), Layout::Hybrid);
        assert_eq!(host.hierarchies().len(), 2);
        assert_eq!(host.hierarchies()[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(host.hierarchies()[1].name.as_deref(), Some("systemd"));
        assert!(host.unified_options().nsdelegate);
        assert_eq!(host.controller("cpuacct"), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct")));
    }

    #[test]
    fn a_pure_machine_is_recognised() {
        let host = parse("30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n");
        assert_eq!(host.expect("cgroups").layout(), Layout::V2);
        assert!(parse("30 24 0:26 / /proc rw - proc proc rw\n").is_none());
    }
}
