//! KubeletConfiguration v1beta1: as typed, then checked.
//!
//! An existing kubelet's file must serve as it is. So every field of v1beta1 is accepted; those that Berth does not use
//! yet and those that nobody knows are both named in a warning, and only a value that can't be meant is an error.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;
use serde::Deserialize;

use crate::pods::Problem;

mod layers;
mod names;

pub use layers::{Layer, Override, load_layers};

/// The checked configuration, defaults filled in (`kubernetes@v1.37.2:pkg/kubelet/apis/config/v1beta1/defaults.go`).
#[derive(Debug, Clone, PartialEq)]
pub struct KubeletConfig {
    /// Folder (or file) of static pods.
    pub static_pod_path: Option<PathBuf>,
    /// Where the HTTPS API listens.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Certificate and key of the HTTPS API; self-signed when absent.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Clients with a certificate of this authority are known.
    pub client_ca_file: Option<PathBuf>,
    /// Whether unknown clients are `system:anonymous` rather than refused.
    pub anonymous: bool,
    /// Whether bearer tokens are checked by TokenReview.
    pub token_review: bool,
    /// Who may do what.
    pub authorization: Authorization,
    /// Where `/healthz` listens in plain HTTP; `None` when its port is 0.
    pub healthz: Option<(IpAddr, u16)>,
    /// Domain of cluster DNS names; empty when there is none.
    pub cluster_domain: String,
    /// Resolvers of pods with `dnsPolicy: ClusterFirst`.
    pub cluster_dns: Vec<IpAddr>,
    /// How often the node's status is computed.
    pub node_status_update: Duration,
    /// How often it is written even when nothing changed.
    pub node_status_report: Duration,
    /// How long the node's lease is good; it is renewed four times in that.
    pub node_lease: Duration,
    /// Parent of all cgroups of pods; `/` when not said.
    pub cgroup_root: String,
    /// `cgroupfs` or `systemd`: advice, as the runtime says what it works with.
    pub cgroup_driver: CgroupDriver,
    /// How many pods the node takes.
    pub max_pods: u32,
    /// Pod network of this node, when no cluster hands one out.
    pub pod_cidr: Option<String>,
    /// Processes per pod; `None` is no limit.
    pub pod_pids_limit: Option<u64>,
    /// The resolv.conf that pods inherit from; `None` is none at all.
    pub resolv_conf: Option<PathBuf>,
    /// A container's log is rotated beyond this many bytes.
    pub container_log_max_size: u64,
    /// How many log files of a container are kept.
    pub container_log_max_files: u32,
    /// Whether the node registers itself.
    pub register_node: bool,
    /// Taints that it registers with.
    pub register_with_taints: Vec<Taint>,
    /// The runtime's socket; `None` is Berth's own, in-process.
    pub container_runtime_endpoint: Option<String>,
    /// Whether the client certificate is renewed before its end.
    pub rotate_certificates: bool,
    /// Whether the HTTPS API's certificate is issued by the cluster.
    pub server_tls_bootstrap: bool,
    /// Whether the HTTPS API refuses TLS 1.2.
    pub only_tls13: bool,
    /// `spec.providerID` of the node.
    pub provider_id: Option<String>,
}

/// Who may do what on the HTTPS API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorization {
    /// Ask the API server (SubjectAccessReview).
    Webhook,
    /// Whoever is known may do everything.
    AlwaysAllow,
}

/// How cgroups are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupDriver {
    /// By writing to the cgroup file system.
    Cgroupfs,
    /// By asking systemd.
    Systemd,
}

/// A configuration and what is to be said about the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// What applies.
    pub config: KubeletConfig,
    /// One line each.
    pub warnings: Vec<String>,
}

/// As in the file. Absent and zero mean the default, as in the reference.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    api_version: String,
    kind: String,
    static_pod_path: String,
    address: String,
    port: i32,
    tls_cert_file: String,
    tls_private_key_file: String,
    authentication: RawAuthentication,
    authorization: RawAuthorization,
    healthz_port: Option<i32>,
    healthz_bind_address: String,
    cluster_domain: String,
    #[serde(rename = "clusterDNS")]
    cluster_dns: Vec<String>,
    node_status_update_frequency: String,
    node_status_report_frequency: String,
    node_lease_duration_seconds: i32,
    cgroup_root: String,
    cgroup_driver: String,
    max_pods: i32,
    #[serde(rename = "podCIDR")]
    pod_cidr: String,
    pod_pids_limit: Option<i64>,
    resolv_conf: Option<String>,
    container_log_max_size: String,
    container_log_max_files: Option<i32>,
    register_node: Option<bool>,
    register_with_taints: Vec<Taint>,
    container_runtime_endpoint: String,
    rotate_certificates: bool,
    #[serde(rename = "serverTLSBootstrap")]
    server_tls_bootstrap: bool,
    tls_min_version: String,
    #[serde(rename = "providerID")]
    provider_id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawAuthentication {
    x509: RawX509,
    webhook: RawWebhookAuthentication,
    anonymous: RawAnonymous,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawX509 {
    #[serde(rename = "clientCAFile")]
    client_ca_file: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawWebhookAuthentication {
    enabled: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawAnonymous {
    enabled: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawAuthorization {
    mode: String,
}

/// What applies when there is no file.
pub fn defaults() -> KubeletConfig {
    match check(Raw::default()) {
        Ok(config) => config,
        // The defaults are constants; a test holds them to be valid.
        Err((field, reason)) => unreachable!("default of {field}: {reason}"),
    }
}

/// Reads a configuration file. Paths in it are relative to the file.
///
/// # Errors
/// One line: file, line, field, reason.
pub fn load(file: &Path, text: &str) -> Result<Loaded, Problem> {
    load_layers(&[Layer { file: file.to_path_buf(), text: text.to_owned() }], &[])
}

fn check(raw: Raw) -> Result<KubeletConfig, (&'static str, String)> {
    let update = duration("nodeStatusUpdateFrequency", &raw.node_status_update_frequency)?;
    let report = duration("nodeStatusReportFrequency", &raw.node_status_report_frequency)?;
    let tls = match (path(&raw.tls_cert_file), path(&raw.tls_private_key_file)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => return Err(("tlsPrivateKeyFile", "is needed with tlsCertFile".to_owned())),
        (None, Some(_)) => return Err(("tlsCertFile", "is needed with tlsPrivateKeyFile".to_owned())),
    };
    let healthz_port = raw.healthz_port.unwrap_or(10248);
    let healthz = match healthz_port {
        0 => None,
        number => {
            Some((address("healthzBindAddress", &raw.healthz_bind_address, "127.0.0.1")?, port("healthzPort", number)?))
        }
    };
    Ok(KubeletConfig {
        static_pod_path: path(&raw.static_pod_path),
        address: address("address", &raw.address, "0.0.0.0")?,
        port: port("port", if raw.port == 0 { 10250 } else { raw.port })?,
        tls,
        client_ca_file: path(&raw.authentication.x509.client_ca_file),
        anonymous: raw.authentication.anonymous.enabled.unwrap_or(false),
        token_review: raw.authentication.webhook.enabled.unwrap_or(true),
        authorization: match raw.authorization.mode.as_str() {
            "" | "Webhook" => Authorization::Webhook,
            "AlwaysAllow" => Authorization::AlwaysAllow,
            other => return Err(("authorization.mode", format!("{other:?} is neither Webhook nor AlwaysAllow"))),
        },
        healthz,
        cluster_domain: raw.cluster_domain,
        cluster_dns: raw.cluster_dns.iter().map(|text| address("clusterDNS", text, "")).collect::<Result<_, _>>()?,
        node_status_update: update.unwrap_or(Duration::from_secs(10)),
        node_status_report: report.or(update).unwrap_or(Duration::from_mins(5)),
        node_lease: match raw.node_lease_duration_seconds {
            0 => Duration::from_secs(40),
            seconds => Duration::from_secs(positive("nodeLeaseDurationSeconds", seconds)?.into()),
        },
        cgroup_root: if raw.cgroup_root.is_empty() { "/".to_owned() } else { raw.cgroup_root },
        cgroup_driver: match raw.cgroup_driver.as_str() {
            "" | "cgroupfs" => CgroupDriver::Cgroupfs,
            "systemd" => CgroupDriver::Systemd,
            other => return Err(("cgroupDriver", format!("{other:?} is neither cgroupfs nor systemd"))),
        },
        max_pods: if raw.max_pods == 0 { 110 } else { positive("maxPods", raw.max_pods)? },
        pod_cidr: Some(raw.pod_cidr).filter(|cidr| !cidr.is_empty()),
        pod_pids_limit: raw.pod_pids_limit.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0),
        resolv_conf: path(raw.resolv_conf.as_deref().unwrap_or("/etc/resolv.conf")),
        container_log_max_size: match raw.container_log_max_size.as_str() {
            "" => 10 << 20,
            text => size(text).ok_or_else(|| ("containerLogMaxSize", format!("{text:?} is no quantity of bytes")))?,
        },
        container_log_max_files: match raw.container_log_max_files {
            None => 5,
            Some(number) if number > 1 => positive("containerLogMaxFiles", number)?,
            Some(number) => return Err(("containerLogMaxFiles", format!("{number} is not greater than 1"))),
        },
        register_node: raw.register_node.unwrap_or(true),
        register_with_taints: raw.register_with_taints,
        container_runtime_endpoint: Some(raw.container_runtime_endpoint).filter(|endpoint| !endpoint.is_empty()),
        rotate_certificates: raw.rotate_certificates,
        server_tls_bootstrap: raw.server_tls_bootstrap,
        only_tls13: match raw.tls_min_version.as_str() {
            // Nothing here speaks what is older than 1.2.
            "" | "VersionTLS10" | "VersionTLS11" | "VersionTLS12" => false,
            "VersionTLS13" => true,
            other => return Err(("tlsMinVersion", format!("{other:?} is neither VersionTLS12 nor VersionTLS13"))),
        },
        provider_id: Some(raw.provider_id).filter(|id| !id.is_empty()),
    })
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

fn address(field: &'static str, text: &str, default: &str) -> Result<IpAddr, (&'static str, String)> {
    let text = if text.is_empty() { default } else { text };
    text.parse().map_err(|_| (field, format!("{text:?} is no IP address")))
}

fn port(field: &'static str, number: i32) -> Result<u16, (&'static str, String)> {
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| (field, format!("{number} is not between 1 and 65535")))
}

fn positive(field: &'static str, number: i32) -> Result<u32, (&'static str, String)> {
    u32::try_from(number).ok().filter(|n| *n > 0).ok_or_else(|| (field, format!("{number} is not a positive number")))
}

/// A size such as `10Mi`; whole units only.
fn size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let units = BTreeMap::from([
        ("", 1),
        ("k", 1000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
    ]);
    text[..end].parse::<u64>().ok()?.checked_mul(*units.get(&text[end..])?)
}

/// A duration as Go writes it (`1h30m`, `10s`, `250ms`). `None` for nothing and for zero, which mean the default.
///
/// # Errors
/// The field, as given, and what is wrong.
pub fn duration(field: &'static str, text: &str) -> Result<Option<Duration>, (&'static str, String)> {
    let wrong = || (field, format!("{text:?} is no duration such as 10s or 1h30m"));
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() && rest != "0" {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, after) = rest.split_at(end);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let units = [("ms", 0.001), ("us", 0.000_001), ("ns", 0.000_000_001), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];
        let (unit, seconds) = units.into_iter().find(|(unit, _)| after.starts_with(unit)).ok_or_else(wrong)?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = &after[unit.len()..];
    }
    Ok(Some(total).filter(|total| !total.is_zero()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

    fn refused(body: &str) -> String {
        load(Path::new("/etc/k.yaml"), &format!("{HEAD}{body}")).expect_err(body).to_string()
    }

    #[test]
    fn an_empty_file_means_the_reference_s_defaults() {
        let loaded = load(Path::new("/etc/k.yaml"), HEAD).expect("loads");
        assert_eq!(loaded, Loaded { config: defaults(), warnings: Vec::new() });
        let config = loaded.config;
        assert_eq!((config.port, config.max_pods, config.node_lease), (10250, 110, Duration::from_secs(40)));
        assert_eq!(config.healthz, Some(("127.0.0.1".parse().expect("address"), 10248)));
        assert_eq!(config.node_status_report, Duration::from_mins(5));
        assert_eq!(config.authorization, Authorization::Webhook);
        assert!(config.register_node && config.token_review && !config.anonymous);
    }

    #[test]
    fn a_kubeadm_file_loads_and_says_what_is_not_used() {
        let body = "authentication: {x509: {clientCAFile: pki/ca.crt}, webhook: {cacheTTL: 9s, enabled: true}}\n\
                    clusterDNS: [10.96.0.10]\nclusterDomain: cluster.local\nnodeStatusUpdateFrequency: 1m30s\n\
                    cgroupDriver: systemd\nevictionHard: {nodefs.available: \"1%\"}\nfailSwapOn: false\nmaxPods: 200\n\
                    staticPodPath: /etc/kubernetes/manifests\ncontainerLogMaxSize: 1Mi\nmaxPod: 3\npodPidsLimit: -1\n";
        let Loaded { config, warnings } = load(Path::new("/etc/k.yaml"), &format!("{HEAD}{body}")).expect("loads");
        assert_eq!(config.client_ca_file.as_deref(), Some(Path::new("/etc/pki/ca.crt")));
        assert_eq!(config.node_status_update, Duration::from_secs(90));
        assert_eq!(config.node_status_report, config.node_status_update);
        assert_eq!(config.cgroup_driver, CgroupDriver::Systemd);
        assert_eq!((config.container_log_max_size, config.pod_pids_limit), (1 << 20, None));
        assert_eq!(
            warnings,
            [
                "/etc/k.yaml: unknown fields, ignored: maxPod (line 13)",
                "/etc/k.yaml: accepted but not used by Berth yet: authentication.webhook.cacheTTL (line 3), \
                 evictionHard (line 8), failSwapOn (line 9)",
            ]
        );
    }

    /// `kubeadm config print init-defaults --component-configs KubeletConfiguration`, v1.37.2, as `kubeadm join` patches it.
    const KUBEADM: &str = r#"apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous:
    enabled: false
  webhook:
    cacheTTL: 0s
    enabled: true
  x509:
    clientCAFile: /etc/kubernetes/pki/ca.crt
authorization:
  mode: Webhook
  webhook:
    cacheAuthorizedTTL: 0s
    cacheUnauthorizedTTL: 0s
cgroupDriver: systemd
clusterDNS:
- 10.96.0.10
clusterDomain: cluster.local
containerRuntimeEndpoint: unix:///run/berth/cri.sock
cpuManagerReconcilePeriod: 0s
crashLoopBackOff: {}
evictionPressureTransitionPeriod: 0s
fileCheckFrequency: 0s
healthzBindAddress: 127.0.0.1
healthzPort: 10248
httpCheckFrequency: 0s
imageMaximumGCAge: 0s
imageMinimumGCAge: 0s
kind: KubeletConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
memorySwap: {}
nodeStatusReportFrequency: 0s
nodeStatusUpdateFrequency: 0s
rotateCertificates: true
runtimeRequestTimeout: 0s
shutdownGracePeriod: 0s
shutdownGracePeriodCriticalPods: 0s
staticPodPath: /etc/kubernetes/manifests
streamingConnectionIdleTimeout: 0s
syncFrequency: 0s
volumeStatsAggPeriod: 0s
"#;

    #[test]
    fn kubeadm_s_own_file_loads_without_an_unknown_field() {
        let Loaded { config, warnings } = load(Path::new("/var/lib/kubelet/config.yaml"), KUBEADM).expect("loads");
        assert_eq!(config.client_ca_file.as_deref(), Some(Path::new("/etc/kubernetes/pki/ca.crt")));
        assert_eq!(config.container_runtime_endpoint.as_deref(), Some("unix:///run/berth/cri.sock"));
        assert!(config.rotate_certificates && !config.server_tls_bootstrap && config.register_node);
        assert_eq!(config.node_status_update, Duration::from_secs(10));
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    /// kind's kubeadm.conf changes these (`sigs.k8s.io/kind:pkg/cluster/internal/kubeadm/config.go`); `metadata` is in its
    /// text, though kubeadm takes it out.
    #[test]
    fn kind_s_file_loads_too() {
        let text = KUBEADM.to_owned()
            + "metadata:\n  name: config\ncgroupRoot: /kubelet\nfailSwapOn: false\nimageGCHighThresholdPercent: 100\n\
             evictionHard:\n  nodefs.available: \"0%\"\n  nodefs.inodesFree: \"0%\"\n  imagefs.available: \"0%\"\n\
             serverTLSBootstrap: true\ntlsMinVersion: VersionTLS13\nproviderID: kind://docker/kind/kind-worker\n\
             conntrack: {maxPerCore: 0}\n";
        let Loaded { config, warnings } = load(Path::new("/var/lib/kubelet/config.yaml"), &text).expect("loads");
        assert_eq!((config.cgroup_root.as_str(), config.cgroup_driver), ("/kubelet", CgroupDriver::Systemd));
        assert!(config.server_tls_bootstrap && config.only_tls13);
        assert_eq!(config.provider_id.as_deref(), Some("kind://docker/kind/kind-worker"));
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("unknown fields, ignored: metadata (line ") && warnings[0].contains("conntrack"));
        assert!(["failSwapOn", "evictionHard", "imageGCHighThresholdPercent"].iter().all(|f| warnings[1].contains(f)));
    }

    #[test]
    fn what_cannot_be_meant_is_one_line() {
        let cases = [
            ("port: 70000\n", "/etc/k.yaml: line 3: field port: 70000 is not between 1 and 65535"),
            ("port: http\n", "/etc/k.yaml: line 3: field port: invalid type: string \"http\", expected i32"),
            ("clusterDNS: [ten]\n", "/etc/k.yaml: line 3: field clusterDNS: \"ten\" is no IP address"),
            ("authorization: {mode: Maybe}\n", "line 3: field authorization.mode: \"Maybe\" is neither"),
            ("tlsCertFile: a\n", "field tlsPrivateKeyFile: is needed with tlsCertFile"),
            ("nodeStatusUpdateFrequency: soon\n", "line 3: field nodeStatusUpdateFrequency: \"soon\" is no duration"),
            ("tlsMinVersion: VersionSSL3\n", "\"VersionSSL3\" is neither VersionTLS12 nor VersionTLS13"),
            ("cgroupDriver: lxc\n", "\"lxc\" is neither cgroupfs nor systemd"),
            ("---\na: 1\n", "one document is needed, there are 2"),
        ];
        for (body, says) in cases {
            assert!(refused(body).contains(says), "{}", refused(body));
        }
        let error = load(Path::new("k"), "kind: Pod\napiVersion: v1\n").expect_err("no configuration");
        assert_eq!(error.to_string(), "k: line 1: field kind: \"Pod\" is not KubeletConfiguration");
    }
}
