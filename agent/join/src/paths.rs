//! Where kubeadm leaves things.

use std::path::{Path, PathBuf};

/// The places that a join writes to (`kubernetes@v1.37.2:cmd/kubeadm/app/constants/constants.go`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    root: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self::below(Path::new("/"))
    }
}

impl Paths {
    /// All of them below `root`, as tests want it.
    pub fn below(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// An absolute path as seen below the root.
    pub fn place(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn at(&self, path: &str) -> PathBuf {
        self.place(Path::new(path))
    }

    /// What was begun and what is there.
    pub fn journal(&self) -> PathBuf {
        self.at("/var/lib/berth/join.json")
    }

    /// The bootstrap token's kubeconfig; gone once the node has its own.
    pub fn bootstrap_kubeconfig(&self) -> PathBuf {
        self.at("/etc/kubernetes/bootstrap-kubelet.conf")
    }

    /// The node's kubeconfig: there once the node has joined.
    pub fn kubeconfig(&self) -> PathBuf {
        self.at("/etc/kubernetes/kubelet.conf")
    }

    /// The node's certificates and keys.
    pub fn certificates(&self) -> PathBuf {
        self.at("/var/lib/kubelet/pki")
    }

    /// The newest client certificate with its key.
    pub fn client_certificate(&self) -> PathBuf {
        self.certificates().join("kubelet-client-current.pem")
    }

    /// The agent's folder for pods.
    pub fn kubelet(&self) -> PathBuf {
        self.at("/var/lib/kubelet")
    }

    /// The agent's configuration, from the cluster.
    pub fn config(&self) -> PathBuf {
        self.kubelet().join("config.yaml")
    }

    /// What this node adds to it.
    pub fn instance_config(&self) -> PathBuf {
        self.kubelet().join("instance-config.yaml")
    }

    /// The agent's arguments.
    pub fn flags(&self) -> PathBuf {
        self.kubelet().join("kubeadm-flags.env")
    }

    /// Where an administrator's units go.
    pub fn units(&self) -> PathBuf {
        self.at("/etc/systemd/system")
    }

    /// Where a package's units are.
    pub fn packaged_units(&self) -> [PathBuf; 2] {
        [self.at("/usr/lib/systemd/system"), self.at("/lib/systemd/system")]
    }
}

/// Where the cluster's authority goes, unless the configuration says otherwise.
pub(crate) const AUTHORITY: &str = "/etc/kubernetes/pki/ca.crt";
