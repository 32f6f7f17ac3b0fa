//! The options of `berth join`, `berth leave` and `berth status`: kubeadm's names where it has them.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use super::Output;

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// The API server's address; the port is usually 6443
    #[arg(value_name = "HOST:PORT")]
    pub(crate) endpoint: Option<String>,
    /// The bootstrap token that `kubeadm token create` prints
    #[arg(long, value_name = "TOKEN", env = "BERTH_JOIN_TOKEN", hide_env_values = true, hide_env = true)]
    pub(crate) token: Option<String>,
    /// The hash of the cluster CA's public key, sha256:HEX; may be given several times
    #[arg(long, value_name = "HASH", value_delimiter = ',')]
    pub(crate) discovery_token_ca_cert_hash: Vec<String>,
    /// Trust whoever knows the token, without the hash
    #[arg(long)]
    pub(crate) discovery_token_unsafe_skip_ca_verification: bool,
    /// A kubeconfig with the cluster's address and CA, instead of HOST:PORT and hash
    #[arg(long, value_name = "FILE")]
    pub(crate) discovery_file: Option<PathBuf>,
    /// The token for the certificate, when it is not --token
    #[arg(long, value_name = "TOKEN", hide_env_values = true)]
    pub(crate) tls_bootstrap_token: Option<String>,
    /// kubeadm's JoinConfiguration (kubeadm.k8s.io/v1, v1beta4 or v1beta3), instead of the options above
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The node's name, instead of the host's
    #[arg(long, value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// The node's address, instead of that of the default route
    #[arg(long, value_name = "IP")]
    pub(crate) node_ip: Option<IpAddr>,
    /// Another CRI runtime's socket (unix:///run/containerd/containerd.sock); the default is the runtime in this program
    #[arg(long, value_name = "ENDPOINT")]
    pub(crate) cri_socket: Option<String>,
    /// Checks whose failure is only told, by the names in brackets; `all` is every one
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) ignore_preflight_errors: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Leave {
    /// An administrator's kubeconfig: deletes the Node, too
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// How long to wait, in seconds, until the evicted pods are gone
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) timeout: u64,
    /// Leave the images where they are
    #[arg(long)]
    pub(crate) keep_images: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// How it is shown
    #[arg(long, short, value_enum, default_value_t = Output::Text, value_name = "FORMAT")]
    pub(crate) output: Output,
}
