//! `berth agent`'s options: the kubelet's names where it has them.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{PodNetwork, RuntimeOptions};
use crate::kubelet::Line;

#[derive(Debug, Args)]
pub(crate) struct Agent {
    /// KubeletConfiguration (kubelet.config.k8s.io/v1beta1)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Folder with *.conf files of the same kind, laid on --config in the order of their names
    #[arg(long, value_name = "DIR")]
    pub(crate) config_dir: Option<PathBuf>,
    /// How to reach the API server; written after a bootstrap
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: PathBuf,
    /// How to get a client certificate when --kubeconfig has none that is good: usually by a bootstrap token
    #[arg(long, value_name = "FILE")]
    pub(crate) bootstrap_kubeconfig: Option<PathBuf>,
    /// Folder for the certificates that the cluster issues
    #[arg(long, default_value = "/var/lib/kubelet/pki", value_name = "DIR")]
    pub(crate) cert_dir: PathBuf,
    /// The node's name, instead of the host's
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname_override: Option<String>,
    /// The node's address, or one of each family, instead of that of the default route
    #[arg(long, value_delimiter = ',', value_name = "IP")]
    pub(crate) node_ip: Vec<IpAddr>,
    /// Labels to register the node with: key=value, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "LABELS")]
    pub(crate) node_labels: Vec<String>,
    /// `external`: the node is tainted until a cloud controller has completed it
    #[arg(long, value_enum, value_name = "PROVIDER")]
    pub(crate) cloud_provider: Option<CloudProvider>,
    /// Folder for what the agent keeps about pods (volumes)
    #[arg(long, default_value = "/var/lib/kubelet", value_name = "DIR")]
    pub(crate) root_dir: PathBuf,
    /// Folder for the pods' logs
    #[arg(long, default_value = "/var/log/pods", value_name = "DIR")]
    pub(crate) pod_logs_dir: PathBuf,
    /// Another CRI runtime's socket (unix:///run/containerd/containerd.sock); the default is the runtime in this program
    #[arg(long, value_name = "ENDPOINT")]
    pub(crate) container_runtime_endpoint: Option<String>,
    /// `bridge` writes a bridge configuration from the node's podCIDR until another CNI configuration appears
    #[arg(long, value_enum, default_value_t = PodNetwork::Off)]
    pub(crate) pod_network: PodNetwork,
    /// How much is logged, as the kubelet counts: from 4 on more, from 6 on everything
    #[arg(long = "v", short = 'v', value_name = "LEVEL")]
    pub(crate) verbosity: Option<i32>,
    #[command(flatten)]
    pub(crate) runtime: RuntimeOptions,
    /// What else the command line said, in the kubelet's words.
    #[arg(skip)]
    pub(crate) kubelet: Line,
}

impl Agent {
    /// What is logged where nothing was asked for by --log-level.
    pub(crate) fn log_level(&self) -> &'static str {
        match self.verbosity.unwrap_or(0) {
            ..=3 => "info",
            4..=5 => "berth=debug,info",
            6.. => "berth=trace,debug",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CloudProvider {
    /// Another program completes the node
    External,
}
