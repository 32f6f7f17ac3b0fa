//! The command lines of the control plane's programs.

use std::path::Path;
use std::process::Command;

use super::{ADDRESS, POD_NETWORK, SERVICE_NETWORK, TOKEN};
use crate::paths;

const ETCD: &str = "http://127.0.0.1:2379";

/// What `kubeadm init phase` reads.
pub(super) fn kubeadm_config(dir: &Path) -> String {
    let version = super::build::KUBERNETES;
    let pki = dir.join("pki");
    let pki = pki.display();
    format!(
        r#"apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {{advertiseAddress: "{ADDRESS}", bindPort: 6443}}
nodeRegistration: {{name: control-plane}}
bootstrapTokens:
- {{token: {TOKEN}, ttl: 24h0m0s}}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
certificatesDir: "{pki}"
kubernetesVersion: {version}
controlPlaneEndpoint: "{ADDRESS}:6443"
networking: {{podSubnet: "{POD_NETWORK}", serviceSubnet: "{SERVICE_NETWORK}"}}
apiServer: {{certSANs: ["127.0.0.1", "{ADDRESS}", "localhost"]}}
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
# The limit is the whole machine's and can't be set from a network namespace; kind says the same.
conntrack: {{maxPerCore: 0}}
---
# As kind has it.
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: systemd
cgroupRoot: /kubelet
failSwapOn: false
imageGCHighThresholdPercent: 100
evictionHard: {{nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}}
"#
    )
}

/// The data are a test's: they need not survive a power cut, so the disk is spared.
pub(super) fn etcd(dir: &Path) -> Command {
    let mut command = program("etcd");
    command
        .arg(option("data-dir", &dir.join("etcd")))
        .args(["--listen-peer-urls=http://127.0.0.1:2380", "--unsafe-no-fsync", "--log-level=warn"])
        .arg(format!("--listen-client-urls={ETCD}"))
        .arg(format!("--advertise-client-urls={ETCD}"));
    command
}

pub(super) fn api_server(dir: &Path) -> Command {
    let pki = dir.join("pki");
    let mut command = program("kube-apiserver");
    command
        .arg(format!("--advertise-address={ADDRESS}"))
        .arg(format!("--etcd-servers={ETCD}"))
        .arg(format!("--service-cluster-ip-range={SERVICE_NETWORK}"))
        .args([
            "--secure-port=6443",
            "--allow-privileged=true",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--enable-bootstrap-token-auth=true",
            "--kubelet-preferred-address-types=InternalIP,Hostname",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
        ]);
    for (name, file) in [
        ("client-ca-file", "ca.crt"),
        ("tls-cert-file", "apiserver.crt"),
        ("tls-private-key-file", "apiserver.key"),
        ("kubelet-client-certificate", "apiserver-kubelet-client.crt"),
        ("kubelet-client-key", "apiserver-kubelet-client.key"),
        ("service-account-key-file", "sa.pub"),
        ("service-account-signing-key-file", "sa.key"),
        ("requestheader-client-ca-file", "front-proxy-ca.crt"),
        ("proxy-client-cert-file", "front-proxy-client.crt"),
        ("proxy-client-key-file", "front-proxy-client.key"),
    ] {
        command.arg(option(name, &pki.join(file)));
    }
    command
}

pub(super) fn controller_manager(dir: &Path, signing: Option<&str>) -> Command {
    let pki = dir.join("pki");
    let mut command = with_kubeconfig("kube-controller-manager", &dir.join("controller-manager.conf"));
    command
        .args(["--allocate-node-cidrs=true", "--use-service-account-credentials=true", "--leader-elect=false"])
        .arg("--controllers=*,bootstrapsigner,tokencleaner")
        .arg(format!("--cluster-cidr={POD_NETWORK}"))
        .arg(format!("--service-cluster-ip-range={SERVICE_NETWORK}"));
    if let Some(duration) = signing {
        command.arg(format!("--cluster-signing-duration={duration}"));
    }
    for (name, file) in [
        ("cluster-signing-cert-file", "ca.crt"),
        ("cluster-signing-key-file", "ca.key"),
        ("root-ca-file", "ca.crt"),
        ("client-ca-file", "ca.crt"),
        ("service-account-private-key-file", "sa.key"),
    ] {
        command.arg(option(name, &pki.join(file)));
    }
    command
}

pub(super) fn scheduler(dir: &Path) -> Command {
    let mut command = with_kubeconfig("kube-scheduler", &dir.join("scheduler.conf"));
    command.arg("--leader-elect=false");
    command
}

fn with_kubeconfig(name: &str, kubeconfig: &Path) -> Command {
    let mut command = program(name);
    for option_name in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
        command.arg(option(option_name, kubeconfig));
    }
    command
}

fn program(name: &str) -> Command {
    Command::new(paths::control_plane_bin().join(name))
}

fn option(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}
