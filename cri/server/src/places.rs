//! Where everything lies.

use std::path::{Path, PathBuf};

/// The folders of the runtime. Ids that become parts of paths were made or checked by us.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) root: PathBuf,
    pub(crate) state: PathBuf,
}

impl Places {
    pub(crate) fn lock(&self) -> PathBuf {
        self.state.join("lock")
    }

    pub(crate) fn sandboxes(&self) -> PathBuf {
        self.state.join("sandboxes")
    }

    /// A sandbox's own folder; the shim lives in it.
    pub(crate) fn sandbox(&self, id: &str) -> PathBuf {
        self.sandboxes().join(id)
    }

    pub(crate) fn sandbox_record(&self, id: &str) -> PathBuf {
        self.sandbox(id).join("sandbox.json")
    }

    /// The shim's exit record of a container.
    pub(crate) fn exit(&self, sandbox: &str, container: &str) -> PathBuf {
        self.sandbox(sandbox).join("exits").join(container)
    }

    pub(crate) fn plans(&self, sandbox: &str) -> PathBuf {
        self.sandbox(sandbox).join("plans")
    }

    /// A container's compiled plan.
    pub(crate) fn plan(&self, sandbox: &str, container: &str) -> PathBuf {
        self.plans(sandbox).join(container)
    }

    /// What other OCI runtimes are given, see [`crate::handlers::bundle`].
    pub(crate) fn bundles(&self, sandbox: &str) -> PathBuf {
        self.sandbox(sandbox).join("bundles")
    }

    pub(crate) fn bundle(&self, sandbox: &str, container: &str) -> PathBuf {
        self.bundles(sandbox).join(container)
    }

    /// What other OCI runtimes keep, in a folder for each handler.
    pub(crate) fn oci(&self) -> PathBuf {
        self.state.join("oci")
    }

    pub(crate) fn namespaces(&self) -> PathBuf {
        self.state.join("netns")
    }

    pub(crate) fn namespace(&self, id: &str) -> PathBuf {
        self.namespaces().join(id)
    }

    /// Where exec'd CNI plugins hold their locks.
    pub(crate) fn running_plugins(&self) -> PathBuf {
        self.state.join("cni")
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// A container's folder; the image store keeps its snapshot there too.
    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    pub(crate) fn container_record(&self, id: &str) -> PathBuf {
        self.container(id).join("container.json")
    }

    /// A container's OCI configuration, for people and tools: nothing is decided by it.
    pub(crate) fn container_spec(&self, id: &str) -> PathBuf {
        self.container(id).join("spec.json")
    }

    /// Where a checkpoint is put together. It has a temporary file's name: a next life removes it.
    pub(crate) fn container_checkpoint(&self, id: &str) -> PathBuf {
        self.container(id).join(format!("{}checkpoint", berth_effect::record::TEMPORARY_PREFIX))
    }

    pub(crate) fn container_exit(&self, id: &str) -> PathBuf {
        self.container(id).join("exit.json")
    }
}

/// A path as the CRI and the plan carry it.
pub(crate) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
