//! The command line, as typed: what it means is decided by each command's own module.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::runtime::file;

mod agent;
mod doctor;
mod join;

pub(crate) use agent::{Agent, CloudProvider};
pub(crate) use doctor::{Doctor, Output};
pub(crate) use join::{Join, Leave, Status};

/// A Kubernetes node in one program: node agent, container runtime and pod network.
#[derive(Debug, Parser)]
#[command(name = "berth", version, max_term_width = 100, propagate_version = true)]
#[command(after_help = "Start with `berth doctor`, which says what this machine lacks, then\n\
    `berth standalone DIR` to run the pods in DIR with no cluster at all.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) log: LogOptions,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
pub(crate) enum Command {
    /// Run the pods of a folder: no cluster, no registry needed
    ///
    /// Every *.yaml, *.yml and *.json file of DIR is a v1 Pod (or a List of them). Files that come, change or go are
    /// followed while it runs. Ctrl-C stops the pods gracefully and leaves nothing behind.
    Standalone(Standalone),
    /// Run as a cluster's node: the kubelet's place
    ///
    /// Registers the node with the API server of --kubeconfig and runs the pods bound to it, through the runtime in this
    /// program or through another one by --container-runtime-endpoint. The kubelet's other flags are taken, too; a link
    /// named `kubelet` to this program takes them alone.
    Agent(Agent),
    /// Serve the Container Runtime Interface on a unix socket: containerd's place
    Cri(Cri),
    /// Say what this machine lacks, what that costs and what to do about it
    ///
    /// Ends with status 1 when something is missing that pods or a node need.
    Doctor(Doctor),
    /// Join a cluster that kubeadm made (kind's, too), as its worker
    ///
    /// Does what `kubeadm join` does for a worker, and leaves the same files; no kubelet and no other runtime is needed. The
    /// agent then runs as the systemd unit berth-agent.service, or in the foreground where there is no systemd. What fails
    /// leaves nothing behind.
    #[command(
        after_help = "On the control-plane node, `kubeadm token create --print-join-command` prints what to type."
    )]
    Join(Join),
    /// Leave the cluster: move the pods away, stop the agent, remove what `join` has installed
    Leave(Leave),
    /// Say what this machine has joined, how its certificates, conditions and pods are, and what it waits for
    Status(Status),
    /// Print a completion script for a shell
    Completions {
        /// The shell to complete for
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
    /// Apply one layer: started by the image store, reads a tar stream
    #[command(hide = true)]
    Unpack,
    /// Print a manifest as the JSON that Berth understands (for comparison with kubectl)
    #[command(hide = true)]
    YamlToJson {
        /// The manifest
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Standalone {
    /// The folder with pod manifests
    pub(crate) dir: PathBuf,
    /// The pods' network, in CIDR notation
    #[arg(long, default_value = "10.88.0.0/16", value_name = "CIDR")]
    pub(crate) pod_cidr: String,
    /// Folder for what the agent keeps about pods (volumes)
    #[arg(long, default_value = "/var/lib/berth/agent", value_name = "DIR")]
    pub(crate) root_dir: PathBuf,
    /// Folder for the pods' logs
    #[arg(long, default_value = "/var/log/pods", value_name = "DIR")]
    pub(crate) pod_logs_dir: PathBuf,
    /// `bridge` gives pods a bridge of Berth's own; `off` takes what --cni-conf-dir holds
    #[arg(long, value_enum, default_value_t = PodNetwork::Bridge)]
    pub(crate) pod_network: PodNetwork,
    #[command(flatten)]
    pub(crate) runtime: RuntimeOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PodNetwork {
    /// Only what the CNI configuration folder holds
    Off,
    /// A bridge of Berth's own, with addresses from the node's pod CIDR
    Bridge,
}

#[derive(Debug, Args)]
pub(crate) struct Cri {
    /// Where to listen
    #[arg(long, default_value = "unix:///run/berth/cri.sock", value_name = "ENDPOINT")]
    pub(crate) listen: String,
    /// Where the URLs of exec, attach and port-forward lead; port 0 is any free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS:PORT")]
    pub(crate) stream_address: SocketAddr,
    #[command(flatten)]
    pub(crate) runtime: RuntimeOptions,
}

/// The container runtime's own options, wherever it runs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Runtime options")]
pub(crate) struct RuntimeOptions {
    /// Images, layers and container records: survives a reboot
    #[arg(long, default_value = "/var/lib/berth", value_name = "DIR")]
    pub(crate) root: PathBuf,
    /// Sandboxes, namespaces and the lock: gone after a reboot
    #[arg(long, default_value = "/run/berth", value_name = "DIR")]
    pub(crate) state: PathBuf,
    /// CNI network configurations; the first valid one is used
    #[arg(long, default_value = "/etc/cni/net.d", value_name = "DIR")]
    pub(crate) cni_conf_dir: PathBuf,
    /// CNI plugins of other makers
    #[arg(long, default_value = "/opt/cni/bin", value_name = "DIR")]
    pub(crate) cni_bin_dir: PathBuf,
    /// The runtime's configuration: OCI runtimes that pods choose by RuntimeClass, the cgroup driver. Only the default may be missing
    #[arg(long, default_value = file::DEFAULT, value_name = "FILE")]
    pub(crate) runtime_config: PathBuf,
    /// Who makes containers' cgroups; what --runtime-config says where this is left out, else cgroupfs
    #[arg(long, value_enum, value_name = "DRIVER")]
    pub(crate) cgroup_driver: Option<CgroupDriver>,
    /// Registry mirrors and certificates: <host>/hosts.toml, as containerd reads them
    #[arg(long, default_value = "/etc/berth/certs.d", value_name = "DIR")]
    pub(crate) registry_config_dir: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CgroupDriver {
    /// The runtime, in the cgroup file system
    Cgroupfs,
    /// systemd, as scopes in the kubelet's slices (`berth cri` alone)
    Systemd,
}

impl From<CgroupDriver> for berth_cri::CgroupDriver {
    fn from(driver: CgroupDriver) -> Self {
        match driver {
            CgroupDriver::Cgroupfs => Self::Cgroupfs,
            CgroupDriver::Systemd => Self::Systemd,
        }
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Log options")]
pub(crate) struct LogOptions {
    /// How log lines look
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// What is logged: a level, or directives such as `berth_cri=debug,info`
    #[arg(long, global = true, env = "BERTH_LOG", value_name = "FILTER")]
    pub(crate) log_level: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}
