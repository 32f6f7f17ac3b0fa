//! Kubeconfigs: read for discovery, written for the bootstrap.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_manifest::decode::decode;
use serde::Deserialize;

use crate::Token;
use crate::yaml::document;

/// Names that kubeadm gives what it writes (`kubernetes@v1.37.2:cmd/kubeadm/app/discovery/discovery.go`).
const CLUSTER: &str = "kubernetes";
const USER: &str = "tls-bootstrap-token-user";

/// How to show who is asking.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Not at all.
    Anonymous,
    /// `Authorization: Bearer`.
    Bearer(String),
    /// By certificate and key, in PEM.
    Certificate {
        /// The chain.
        certificate: Vec<u8>,
        /// Its key.
        key: Vec<u8>,
    },
}

impl Credentials {
    /// Those of a bootstrap token.
    pub fn token(token: &Token) -> Self {
        Self::Bearer(token.bearer())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Bearer(_) => "Bearer(…)",
            Self::Certificate { .. } => "Certificate(…)",
        })
    }
}

/// What a kubeconfig's current context says. Clusters without a context are found when there is one cluster only, as in
/// cluster-info.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kubeconfig {
    /// `https://HOST:PORT`.
    pub(crate) server: String,
    /// PEM bundle; empty when it says none.
    pub(crate) authority: Vec<u8>,
    pub(crate) credentials: Credentials,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Raw {
    clusters: Vec<RawNamed>,
    contexts: Vec<RawNamed>,
    users: Vec<RawNamed>,
    current_context: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawNamed {
    name: String,
    cluster: Option<RawCluster>,
    context: Option<RawContext>,
    user: Option<RawUser>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct RawCluster {
    server: String,
    certificate_authority: String,
    certificate_authority_data: String,
    insecure_skip_tls_verify: bool,
    proxy_url: String,
    tls_server_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawContext {
    cluster: String,
    user: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct RawUser {
    token: String,
    #[serde(rename = "tokenFile")]
    token_file: String,
    client_certificate: String,
    client_certificate_data: String,
    client_key: String,
    client_key_data: String,
    username: String,
    exec: Option<serde_json::Value>,
    auth_provider: Option<serde_json::Value>,
}

/// Where the files that a kubeconfig refers to are read from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Files<'a> {
    /// Relative to this folder.
    In(&'a Path),
    /// Nowhere: it came over the network.
    Refused,
}

impl Kubeconfig {
    /// Reads one.
    ///
    /// # Errors
    /// In one line, naming the field.
    pub(crate) fn parse(text: &str, files: Files<'_>) -> Result<Self, String> {
        let (raw, _) = decode::<Raw>(&document(text)?).map_err(|error| error.to_string())?;
        let context = raw.contexts.iter().find(|context| context.name == raw.current_context);
        let context = context.and_then(|context| context.context.as_ref());
        let cluster = match context {
            Some(context) => raw.clusters.iter().find(|cluster| cluster.name == context.cluster),
            None if raw.current_context.is_empty() && raw.clusters.len() == 1 => raw.clusters.first(),
            None => return Err(format!("current-context {:?} is not among its contexts", raw.current_context)),
        };
        let cluster = cluster.and_then(|named| named.cluster.as_ref()).ok_or("it names no cluster")?;
        let user = context.and_then(|context| raw.users.iter().find(|user| user.name == context.user));
        let credentials = match user.and_then(|user| user.user.as_ref()) {
            Some(user) => user.credentials(files)?,
            None => Credentials::Anonymous,
        };
        let authority = content(
            "certificate-authority",
            &cluster.certificate_authority,
            &cluster.certificate_authority_data,
            files,
        )?;
        for (given, field) in [
            (cluster.insecure_skip_tls_verify, "insecure-skip-tls-verify"),
            (!cluster.proxy_url.is_empty(), "proxy-url"),
            (!cluster.tls_server_name.is_empty(), "tls-server-name"),
        ] {
            if given {
                return Err(format!("clusters[].cluster.{field} is not supported"));
            }
        }
        Ok(Self { server: cluster.server.clone(), authority: authority.unwrap_or_default(), credentials })
    }
}

impl RawUser {
    fn credentials(&self, files: Files<'_>) -> Result<Credentials, String> {
        for (given, field) in [
            (self.exec.is_some(), "exec"),
            (self.auth_provider.is_some(), "auth-provider"),
            (!self.username.is_empty(), "username"),
        ] {
            if given {
                return Err(format!("users[].user.{field} is not supported: use a token or a client certificate"));
            }
        }
        let certificate =
            content("client-certificate", &self.client_certificate, &self.client_certificate_data, files)?;
        let key = content("client-key", &self.client_key, &self.client_key_data, files)?;
        match (certificate, key) {
            (Some(certificate), Some(key)) => return Ok(Credentials::Certificate { certificate, key }),
            (None, None) => {}
            _ => return Err("users[].user: client-certificate and client-key go together".to_owned()),
        }
        if !self.token_file.is_empty() {
            let token = read("tokenFile", &self.token_file, files)?;
            let token = String::from_utf8(token).map_err(|_| "users[].user.tokenFile: is not text".to_owned())?;
            return Ok(Credentials::Bearer(token.trim().to_owned()));
        }
        Ok(if self.token.is_empty() { Credentials::Anonymous } else { Credentials::Bearer(self.token.clone()) })
    }
}

/// Of `FIELD-data`, or of the file that `FIELD` names.
fn content(field: &str, path: &str, data: &str, files: Files<'_>) -> Result<Option<Vec<u8>>, String> {
    if !data.is_empty() {
        return STANDARD.decode(data).map(Some).map_err(|_| format!("{field}-data: is not base64"));
    }
    if path.is_empty() { Ok(None) } else { read(field, path, files).map(Some) }
}

fn read(field: &str, path: &str, files: Files<'_>) -> Result<Vec<u8>, String> {
    let Files::In(folder) = files else { return Err(format!("{field}: names a file, which is not allowed here")) };
    let path: PathBuf = folder.join(path);
    match berth_effect::record::read(&path, 1 << 20) {
        Ok(Some(content)) => Ok(content),
        Ok(None) => Err(format!("{field}: {} is not there", path.display())),
        Err(error) => Err(format!("{field}: {}: {error}", path.display())),
    }
}

/// A kubeconfig as kubeadm writes bootstrap-kubelet.conf: everything inside it, no reference to another file.
pub(crate) fn compose(server: &str, authority: &[u8], credentials: &Credentials) -> String {
    // A JSON string is a YAML scalar, whatever stands in it.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let user = match credentials {
        Credentials::Anonymous => " {}\n".to_owned(),
        Credentials::Bearer(token) => format!("\n    token: {}\n", quoted(token)),
        Credentials::Certificate { certificate, key } => format!(
            "\n    client-certificate-data: {}\n    client-key-data: {}\n",
            STANDARD.encode(certificate),
            STANDARD.encode(key)
        ),
    };
    format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {}\n    server: {}\n  name: {CLUSTER}\n\
         contexts:\n- context:\n    cluster: {CLUSTER}\n    user: {USER}\n  name: {USER}@{CLUSTER}\n\
         current-context: {USER}@{CLUSTER}\nkind: Config\npreferences: {{}}\nusers:\n- name: {USER}\n  user:{user}",
        STANDARD.encode(authority),
        quoted(server),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_composed_is_read_again() {
        for credentials in [
            Credentials::Bearer("abcdef.0123456789abcdef".to_owned()),
            Credentials::Certificate { certificate: b"c".to_vec(), key: b"k".to_vec() },
            Credentials::Anonymous,
        ] {
            let text = compose("https://[2001:db8::1]:6443", b"PEM", &credentials);
            let read = Kubeconfig::parse(&text, Files::Refused).expect("parses");
            let server = "https://[2001:db8::1]:6443".to_owned();
            assert_eq!(read, Kubeconfig { server, authority: b"PEM".to_vec(), credentials });
        }
    }

    #[test]
    fn cluster_info_names_a_cluster_and_nobody() {
        let text = "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: UEVN\n    \
                    server: https://kind-control-plane:6443\n  name: \"\"\ncontexts: null\ncurrent-context: \"\"\n\
                    kind: Config\npreferences: {}\nusers: null\n";
        let read = Kubeconfig::parse(text, Files::Refused).expect("parses");
        assert_eq!((read.server.as_str(), read.authority.as_slice()), ("https://kind-control-plane:6443", &b"PEM"[..]));
        assert_eq!(read.credentials, Credentials::Anonymous);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let user = |user: &str| {
            format!(
                "current-context: a\ncontexts: [{{name: a, context: {{cluster: c, user: u}}}}]\n\
                 clusters: [{{name: c, cluster: {{server: https://a}}}}]\nusers: [{{name: u, user: {user}}}]\n"
            )
        };
        let cases = [
            ("- a".to_owned(), "a mapping"),
            (String::new(), "one document"),
            ("current-context: x\n".to_owned(), "current-context \"x\""),
            ("clusters: []\n".to_owned(), "current-context \"\""),
            (
                "clusters: [{cluster: {server: a, certificate-authority-data: '*'}}]\n".to_owned(),
                "authority-data: is not base64",
            ),
            ("clusters: [{cluster: {server: a, certificate-authority: /etc/shadow}}]\n".to_owned(), "not allowed here"),
            (
                "clusters: [{cluster: {server: a, insecure-skip-tls-verify: true}}]\n".to_owned(),
                "insecure-skip-tls-verify",
            ),
            (user("{exec: {command: evil}}"), "exec is not supported"),
            (user("{client-certificate-data: YQ==}"), "go together"),
            (user("{tokenFile: /etc/shadow}"), "not allowed here"),
        ];
        for (text, says) in cases {
            let error = Kubeconfig::parse(&text, Files::Refused).expect_err(&text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn files_are_read_beside_it() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("ca.crt"), "PEM").expect("written");
        let text = "clusters: [{cluster: {server: https://a, certificate-authority: ca.crt}}]\n";
        assert_eq!(Kubeconfig::parse(text, Files::In(folder.path())).expect("parses").authority, b"PEM");
        let text = "clusters: [{cluster: {server: https://a, certificate-authority: none.crt}}]\n";
        let error = Kubeconfig::parse(text, Files::In(folder.path())).expect_err("no file");
        assert!(error.contains("none.crt is not there"), "{error}");
    }
}
