//! Why a machine does not join: one sentence each, with what to do.

use std::io;
use std::path::PathBuf;

use k8s_openapi::jiff::Timestamp;

use crate::Version;

/// Why joining failed. Every message is one line that names the cause and the remedy; where `kubeadm join` has words for
/// it, users find them here.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    // What was asked for.
    /// The token is not of the right form.
    #[error(
        "--token: not of the form abcdef.0123456789abcdef (6, a dot, 16 of a-z and 0-9); use \"kubeadm token create\" on the \
         control-plane node to get one"
    )]
    TokenForm,
    /// A pin is not of the right form.
    #[error(
        "--discovery-token-ca-cert-hash {given:?}: {reason}; \"kubeadm token create --print-join-command\" prints it"
    )]
    PinForm {
        /// As given, shortened.
        given: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Neither a pin nor the explicit waiver.
    #[error(
        "--discovery-token-ca-cert-hash is missing: without it, whoever knows the token can stand in for the control plane; \
         give the hash (\"kubeadm token create --print-join-command\" prints it) or pass \
         --discovery-token-unsafe-skip-ca-verification"
    )]
    PinMissing,
    /// An option or a field has a value that can't be meant, or one that is not supported.
    #[error("{place}: {reason}")]
    Request {
        /// The option, or file, line and field.
        place: String,
        /// What is wrong and what to do.
        reason: String,
    },

    // Reaching the API server.
    /// No connection.
    #[error(
        "the API server at {endpoint} can't be reached: {reason}; check the address, that this machine has a route to it and \
         that no firewall is in between"
    )]
    Unreachable {
        /// Host and port.
        endpoint: String,
        /// In the system's words.
        reason: String,
    },
    /// Something answers that speaks no TLS.
    #[error(
        "{endpoint} answers, but not as an API server does: {reason}; check host and port (kubeadm's default is 6443)"
    )]
    NotTls {
        /// Host and port.
        endpoint: String,
        /// In the TLS library's words.
        reason: String,
    },
    /// The server's certificate is not by the cluster's authority, or not for this host.
    #[error("the certificate of the API server at {endpoint} is not good: {reason}")]
    ServerIdentity {
        /// Host and port.
        endpoint: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The server's certificate is out of its time and our clock is right.
    #[error(
        "the API server's certificate {verb} {at}: renew it on the control-plane node (\"kubeadm certs renew apiserver\") and \
         restart the API server"
    )]
    ServerCertificate {
        /// `begins only at` or `has ended at`.
        verb: &'static str,
        /// When.
        at: Timestamp,
    },
    /// This machine's clock is off.
    #[error(
        "this machine's clock ({local}) is {by} {side} {evidence}: set it right (chronyd or systemd-timesyncd keep it so) and join again"
    )]
    Clock {
        /// What the clock says.
        local: Timestamp,
        /// How far it is off.
        by: String,
        /// `behind` or `ahead of`.
        side: &'static str,
        /// Compared to what.
        evidence: &'static str,
    },
    /// An answer that nothing better is known about.
    #[error("{what}: the API server at {endpoint} answered {status}{words}")]
    Answer {
        /// What was asked for.
        what: String,
        /// Host and port.
        endpoint: String,
        /// The HTTP status.
        status: u16,
        /// The server's words, with a colon before; may be empty.
        words: String,
    },

    // Trust.
    /// The server has no cluster-info.
    #[error(
        "the API server at {endpoint} has no cluster-info for joining nodes ({reason}): run \"kubeadm init phase \
         bootstrap-token\" on the control-plane node, or join with a discovery file"
    )]
    NoClusterInfo {
        /// Host and port.
        endpoint: String,
        /// 403, 404, or what is missing in it.
        reason: String,
    },
    /// cluster-info is not signed for this token: deleted, expired, or never there.
    #[error(
        "token id {id:?} is invalid for this cluster or it has expired. Use \"kubeadm token create\" on the control-plane \
         node to create a new valid token"
    )]
    TokenUnknown {
        /// The token's public half.
        id: String,
    },
    /// cluster-info came over a connection that the pinned authority vouches for, and yet the signature is wrong.
    #[error(
        "failed to verify JWS signature of cluster-info with token {id:?}, although it comes from the pinned cluster itself: \
         either the token's secret is mistyped (compare \"kubeadm token list\" on the control-plane node), or cluster-info was \
         tampered with there and not signed anew"
    )]
    TokenSecret {
        /// The token's public half.
        id: String,
    },
    /// The signature is wrong, and nothing tells whether by the token or by cluster-info.
    #[error(
        "failed to verify JWS signature of received cluster info object, can't trust this API Server: either the secret of \
         token {id:?} is mistyped (compare \"kubeadm token list\"), or something between here and the control plane changed \
         cluster-info"
    )]
    Signature {
        /// The token's public half.
        id: String,
    },
    /// What was sent without verified TLS is not what the cluster itself says.
    #[error(
        "cluster-info was changed on its way: what the pinned cluster itself answers is different from what came first; \
         don't use this network until you know who is in between"
    )]
    Tampered,
    /// cluster-info makes no sense.
    #[error(
        "cluster-info of {endpoint} can't be used: {reason}; \"kubeadm init phase bootstrap-token\" on the control-plane node writes it anew"
    )]
    ClusterInfo {
        /// Host and port.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The cluster's authority can't be read.
    #[error("the cluster's CA certificate can't be used: {0}")]
    Authority(String),
    /// The cluster's authority is another one.
    #[error(
        "cluster CA found in cluster-info is invalid: its public key has the hash {found}, which is not the pinned one; check \
         --discovery-token-ca-cert-hash and that this is the right cluster (\"kubeadm token create --print-join-command\" \
         prints both)"
    )]
    PinMismatch {
        /// `sha256:HEX`, several with commas.
        found: String,
    },

    // What the cluster says.
    /// The token does not authenticate.
    #[error(
        "the API server at {endpoint} does not accept the bootstrap token: it has expired or may only sign; use \"kubeadm \
         token create\" on the control-plane node to create a new valid token"
    )]
    Unauthorized {
        /// Host and port.
        endpoint: String,
    },
    /// The credentials may not read what every joining node reads.
    #[error(
        "{what} may not be read with these credentials{words}: the token must be in the group \
         system:bootstrappers:kubeadm:default-node-token (\"kubeadm token create\" puts it there)"
    )]
    Forbidden {
        /// What was asked for.
        what: String,
        /// The server's words in brackets; may be empty.
        words: String,
    },
    /// A ConfigMap that kubeadm writes is not there.
    #[error(
        "the cluster has no {what}: it was not made by kubeadm, or \"kubeadm init phase upload-config all\" did not run"
    )]
    Missing {
        /// ConfigMap and key.
        what: String,
    },
    /// A ConfigMap that kubeadm writes makes no sense.
    #[error("{what} can't be used: {reason}")]
    Content {
        /// ConfigMap and key.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The name is taken.
    #[error(
        "a Node with name {name:?} and status \"Ready\" already exists in the cluster. You must delete the existing Node \
         (kubectl delete node {name}) or change the name of this new joining Node (--node-name)"
    )]
    NodeExists {
        /// The node's name.
        name: String,
    },
    /// kubeadm's old configuration format for a cluster that no longer knows it.
    #[error(
        "apiVersion: kubeadm.k8s.io/v1beta3 is for clusters up to 1.35, and this one is {cluster}; use \"kubeadm config migrate\" to get a newer one"
    )]
    OldConfiguration {
        /// The cluster's version.
        cluster: Version,
    },

    // This machine.
    /// It is part of a cluster.
    #[error(
        "this machine has joined {cluster} as node {node:?} already; `berth leave` takes it out, then it can join again"
    )]
    Joined {
        /// The cluster, for people.
        cluster: String,
        /// The node's name.
        node: String,
    },
    /// Someone else's kubelet lives here.
    #[error("this machine is a node already ({} is there, and not by berth join); `kubeadm reset` takes it out, then it can join again", file.display())]
    Foreign {
        /// What was found.
        file: PathBuf,
    },
    /// It is being taken out.
    #[error("this machine is leaving a cluster and has not finished: run `berth leave` again, then it can join")]
    Leaving,
    /// It is no part of a cluster.
    #[error("this machine has not joined a cluster with `berth join`: there is nothing to leave")]
    NotJoined,
    /// Another one is at it.
    #[error("another `berth join` or `berth leave` is at work on this machine: wait until it has ended")]
    Busy,
    /// Checks before anything is done.
    #[error("[preflight] {obstacles}; `--ignore-preflight-errors={names}` goes on all the same")]
    Preflight {
        /// Each as `[ERROR NAME]: reason`.
        obstacles: String,
        /// Their names, with commas.
        names: String,
    },
    /// The file system refuses.
    #[error("{}: {doing}: {}", path.display(), describe(cause))]
    Io {
        /// What was done to it.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's words.
        cause: io::Error,
    },
    /// The journal is not one that this version wrote.
    #[error("{}: can't be read ({reason}): written by another version of berth? That one's `berth leave` understands it", path.display())]
    Journal {
        /// The journal.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// systemd refuses.
    #[error("systemctl {arguments}: {reason}; `journalctl -u berth-agent` may tell more")]
    Systemd {
        /// What it was asked.
        arguments: String,
        /// Its words, or how it ended.
        reason: String,
    },
}

impl JoinError {
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, cause: source }
    }

    pub(crate) fn request(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Request { place: place.into(), reason: reason.into() }
    }
}

/// The system's words, with a remedy for what can be helped.
fn describe(source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::StorageFull => format!("{source}: the disk is full, free some space and join again"),
        io::ErrorKind::QuotaExceeded => format!("{source}: raise the quota or free some space and join again"),
        io::ErrorKind::ReadOnlyFilesystem => format!("{source}: remount it read-write and join again"),
        io::ErrorKind::PermissionDenied => format!("{source}: run as root (sudo)"),
        _ => source.to_string(),
    }
}
