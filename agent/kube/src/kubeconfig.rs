//! What a kubeconfig says, and the one that a bootstrapped node gets.

use std::fmt::Write;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::config::{AuthInfo, Cluster, Kubeconfig};

use crate::ConnectError;
use crate::certificates::Pair;
use crate::connect::read;

/// What an existing kubeconfig is good for, to a node that could also bootstrap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// There is no such file.
    Absent,
    /// It can't be used, or has no client certificate.
    Unusable(String),
    /// It has one.
    Certificate(Box<Pair>),
}

/// Looks at the client certificate of the current context.
pub(crate) fn look(file: &Path) -> Found {
    if !file.exists() {
        return Found::Absent;
    }
    match read(file) {
        Err(error) => Found::Unusable(error.to_string()),
        Ok(kubeconfig) => match pair(&kubeconfig) {
            Ok(pair) => Found::Certificate(Box::new(pair)),
            Err(reason) => Found::Unusable(format!("{}: {reason}", file.display())),
        },
    }
}

fn pair(kubeconfig: &Kubeconfig) -> Result<Pair, String> {
    let user = user(kubeconfig).ok_or("the current context has no user")?;
    let value = serde_json::to_value(user).map_err(|error| error.to_string())?;
    let text = |data: &str, file: &str| -> Result<String, String> {
        if let Some(data) = value.get(data).and_then(|data| data.as_str()) {
            let bytes = STANDARD.decode(data).map_err(|error| format!("client certificate data: {error}"))?;
            return String::from_utf8(bytes).map_err(|error| format!("client certificate data: {error}"));
        }
        let path = value.get(file).and_then(|path| path.as_str()).ok_or("its user has no client certificate")?;
        std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
    };
    let certificate = text("client-certificate-data", "client-certificate")?;
    let key = text("client-key-data", "client-key")?;
    let mut pair = Pair::new(&certificate, &key).map_err(|error| error.to_string())?;
    let file = value.get("client-certificate").and_then(|path| path.as_str());
    pair.obtained = file.and_then(|file| std::fs::metadata(file).ok()?.modified().ok());
    Ok(pair)
}

fn user(kubeconfig: &Kubeconfig) -> Option<&AuthInfo> {
    let name = &context(kubeconfig)?.user.as_ref()?;
    kubeconfig.auth_infos.iter().find(|named| named.name == **name)?.auth_info.as_ref()
}

fn context(kubeconfig: &Kubeconfig) -> Option<&kube::config::Context> {
    let name = kubeconfig.current_context.as_ref()?;
    kubeconfig.contexts.iter().find(|named| named.name == *name)?.context.as_ref()
}

/// The cluster of the current context.
pub(crate) fn cluster(kubeconfig: &Kubeconfig) -> Option<&Cluster> {
    let name = &context(kubeconfig)?.cluster;
    kubeconfig.clusters.iter().find(|named| named.name == *name)?.cluster.as_ref()
}

/// The same way to the same cluster, as whoever holds the certificate and key in `file`.
pub(crate) fn with_certificate(mut kubeconfig: Kubeconfig, file: &Path) -> Kubeconfig {
    let file = file.display().to_string();
    let name = context(&kubeconfig).and_then(|context| context.user.clone());
    for named in &mut kubeconfig.auth_infos {
        if Some(&named.name) == name.as_ref() {
            let certificate = Some(file.clone());
            named.auth_info = Some(AuthInfo {
                client_certificate: certificate.clone(),
                client_key: certificate,
                ..AuthInfo::default()
            });
        }
    }
    kubeconfig
}

/// A kubeconfig for the cluster of `bootstrap` (read from `file`), with the certificate and key in `current`.
///
/// Names as `kubernetes@v1.37.2:pkg/kubelet/certificate/bootstrap/bootstrap.go#writeKubeconfigFromBootstrapping` chooses
/// them.
pub(crate) fn bootstrapped(file: &Path, bootstrap: &Kubeconfig, current: &Path) -> Result<String, ConnectError> {
    let missing = || ConnectError::Kubeconfig {
        file: file.to_path_buf(),
        source: Box::new(kube::config::KubeconfigError::MissingClusterUrl),
    };
    let cluster = cluster(bootstrap).ok_or_else(missing)?;
    let server = cluster.server.as_deref().ok_or_else(missing)?;
    let mut lines = String::from("apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n");
    let mut line = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            // A JSON string is a YAML string.
            let _ = writeln!(lines, "    {name}: {}", serde_json::Value::from(value));
        }
    };
    line("certificate-authority", cluster.certificate_authority.as_deref());
    line("certificate-authority-data", cluster.certificate_authority_data.as_deref());
    line("proxy-url", cluster.proxy_url.as_deref());
    line("server", Some(server));
    line("tls-server-name", cluster.tls_server_name.as_deref());
    if cluster.insecure_skip_tls_verify == Some(true) {
        lines.push_str("    insecure-skip-tls-verify: true\n");
    }
    let current = serde_json::Value::from(current.display().to_string());
    let _ = write!(
        lines,
        "  name: default-cluster\ncontexts:\n- context:\n    cluster: default-cluster\n    namespace: default\n    \
         user: default-auth\n  name: default-context\ncurrent-context: default-context\nusers:\n- name: default-auth\n  \
         user:\n    client-certificate: {current}\n    client-key: {current}\n"
    );
    Ok(lines)
}

/// The address of the API server, for people.
pub(crate) fn server(file: &Path) -> Option<String> {
    cluster(&read(file).ok()?)?.server.clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::pair_for_tests as some_pair;

    fn bootstrap() -> &'static str {
        "apiVersion: v1\nkind: Config\nclusters:\n- name: kubernetes\n  cluster:\n    server: https://10.0.0.1:6443\n    \
         certificate-authority-data: QUJD\ncontexts:\n- name: tls-bootstrap-token-user@kubernetes\n  context: {cluster: \
         kubernetes, user: tls-bootstrap-token-user}\ncurrent-context: tls-bootstrap-token-user@kubernetes\nusers:\n- name: \
         tls-bootstrap-token-user\n  user: {token: abcdef.0123456789abcdef}\n"
    }

    #[test]
    fn a_bootstrapped_kubeconfig_leads_to_the_same_cluster_with_the_certificate() {
        let dir = tempfile::tempdir().expect("a folder");
        let (from, to) = (dir.path().join("bootstrap-kubelet.conf"), dir.path().join("kubelet.conf"));
        std::fs::write(&from, bootstrap()).expect("writes");
        assert_eq!(look(&to), Found::Absent);
        assert!(
            matches!(look(&from), Found::Unusable(reason) if reason.ends_with("its user has no client certificate"))
        );
        let current = dir.path().join("kubelet-client-current.pem");
        let text = bootstrapped(&from, &read(&from).expect("reads"), &current).expect("renders");
        assert!(!text.contains("abcdef"), "{text}");
        std::fs::write(&to, &text).expect("writes");
        assert!(
            matches!(look(&to), Found::Unusable(reason) if reason.contains("kubelet-client-current.pem: No such file"))
        );
        let pair = some_pair(&[], 60);
        std::fs::write(&current, pair.to_pem()).expect("writes");
        let Found::Certificate(found) = look(&to) else { panic!("{:?}", look(&to)) };
        assert_eq!(found.not_after(), pair.not_after());
        assert_eq!(server(&to).as_deref(), Some("https://10.0.0.1:6443"));
        assert_eq!(
            cluster(&read(&to).expect("reads")).expect("cluster").certificate_authority_data.as_deref(),
            Some("QUJD")
        );

        let moved = with_certificate(read(&to).expect("reads"), Path::new("/other.pem"));
        assert_eq!(user(&moved).expect("user").client_key.as_deref(), Some("/other.pem"));
    }
}
