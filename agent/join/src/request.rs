//! What was asked for, checked.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use berth_manifest::is_subdomain;
use k8s_openapi::api::core::v1::Taint;

use crate::https::Endpoint;
use crate::{JoinError, Pins, Token};

/// How the cluster is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discovery {
    /// By an address and a shared secret.
    Token {
        /// `HOST:PORT`.
        endpoint: String,
        /// The secret.
        token: Token,
        /// Accepted authorities; none when the user waived it.
        pins: Pins,
    },
    /// By a kubeconfig on this machine.
    File {
        /// Where it is.
        path: PathBuf,
    },
}

/// An argument of the agent, and where it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Without dashes.
    pub name: String,
    /// What follows the `=`.
    pub value: String,
    /// The option, or file, line and field.
    pub place: String,
}

impl fmt::Display for Argument {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "--{}={}", self.name, self.value)
    }
}

/// How long is waited; `None` is the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// For a server that is away, or a token that is not signed yet.
    pub discovery: Option<Duration>,
    /// For the client certificate.
    pub tls_bootstrap: Option<Duration>,
}

/// A checked wish to join.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// How the cluster is found.
    pub discovery: Discovery,
    /// For the bootstrap, when it is not the discovery's own.
    pub tls_bootstrap_token: Option<String>,
    /// The node's name in the cluster.
    pub node: String,
    /// The machine's own name.
    pub hostname: String,
    /// Another runtime's socket; `None` is Berth's own.
    pub cri_socket: Option<String>,
    /// For the agent, in the order given.
    pub arguments: Vec<Argument>,
    /// The node registers with these.
    pub taints: Vec<Taint>,
    /// Where the cluster's authority is written to.
    pub authority: PathBuf,
    /// Checks whose failure is only told; `all` is every one.
    pub ignored: BTreeSet<String>,
    /// How long is waited.
    pub timeouts: Timeouts,
    /// It was given in kubeadm's v1beta3, which clusters past 1.35 do not know.
    pub is_old_format: bool,
}

/// `berth join`'s options, as typed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// `HOST:PORT`.
    pub endpoint: Option<String>,
    /// `--token`: for discovery and bootstrap.
    pub token: Option<String>,
    /// `--discovery-token-ca-cert-hash`.
    pub hashes: Vec<String>,
    /// `--discovery-token-unsafe-skip-ca-verification`.
    pub skip_verification: bool,
    /// `--discovery-file`.
    pub discovery_file: Option<PathBuf>,
    /// `--tls-bootstrap-token`.
    pub tls_bootstrap_token: Option<String>,
    /// `--cri-socket`.
    pub cri_socket: Option<String>,
    /// `--node-name`.
    pub node_name: Option<String>,
    /// `--node-ip`.
    pub node_ip: Option<IpAddr>,
    /// `--ignore-preflight-errors`.
    pub ignored: Vec<String>,
}

impl Request {
    /// From options alone. `hostname` is the machine's.
    ///
    /// # Errors
    /// What was given and can't be meant.
    pub fn from_options(options: &Options, hostname: &str) -> Result<Self, JoinError> {
        let discovery = match (&options.discovery_file, &options.endpoint) {
            (Some(_), Some(_)) => {
                return Err(JoinError::request("--discovery-file", "goes without HOST:PORT, which is in the file"));
            }
            (Some(path), None) => Discovery::File { path: path.clone() },
            (None, None) => {
                return Err(JoinError::request(
                    "HOST:PORT",
                    "is missing: the API server's address, or --config, or --discovery-file",
                ));
            }
            (None, Some(endpoint)) => {
                let token = options.token.as_deref().ok_or_else(|| {
                    JoinError::request(
                        "--token",
                        "is missing: \"kubeadm token create\" on the control-plane node prints one",
                    )
                })?;
                by_token(endpoint, token, &options.hashes, options.skip_verification, "HOST:PORT")?
            }
        };
        let request = Self {
            discovery,
            tls_bootstrap_token: match (&options.tls_bootstrap_token, &options.discovery_file) {
                (Some(token), _) => Some(token.clone()),
                // kubeadm's --token stands for both.
                (None, Some(_)) => options.token.clone(),
                (None, None) => None,
            },
            node: hostname.to_owned(),
            hostname: hostname.to_owned(),
            cri_socket: None,
            arguments: Vec::new(),
            taints: Vec::new(),
            authority: crate::paths::AUTHORITY.into(),
            ignored: BTreeSet::new(),
            timeouts: Timeouts::default(),
            is_old_format: false,
        };
        request.with_options(options)
    }

    /// With what may be given beside a configuration file.
    ///
    /// # Errors
    /// Options that a file excludes, and what can't be meant.
    pub(crate) fn with_file_options(self, options: &Options) -> Result<Self, JoinError> {
        let given = [
            (options.endpoint.is_some(), "HOST:PORT"),
            (options.token.is_some(), "token"),
            (!options.hashes.is_empty(), "discovery-token-ca-cert-hash"),
            (options.skip_verification, "discovery-token-unsafe-skip-ca-verification"),
            (options.discovery_file.is_some(), "discovery-file"),
            (options.tls_bootstrap_token.is_some(), "tls-bootstrap-token"),
            (options.cri_socket.is_some(), "cri-socket"),
        ];
        let mixed: Vec<&str> = given.into_iter().filter(|(given, _)| *given).map(|(_, name)| name).collect();
        if !mixed.is_empty() {
            let reason = format!("can not mix '--config' with arguments [{}]: put them into the file", mixed.join(" "));
            return Err(JoinError::request("--config", reason));
        }
        self.with_options(options)
    }

    fn with_options(mut self, options: &Options) -> Result<Self, JoinError> {
        if let Some(socket) = &options.cri_socket {
            self.cri_socket = Some(cri_socket(socket).map_err(|reason| JoinError::request("--cri-socket", reason))?);
        }
        if let Some(name) = &options.node_name {
            self.node.clone_from(name);
        }
        if let Some(ip) = options.node_ip {
            self.arguments.retain(|argument| argument.name != "node-ip");
            let argument = Argument { name: "node-ip".into(), value: ip.to_string(), place: "--node-ip".into() };
            self.arguments.push(argument);
        }
        self.ignored.extend(options.ignored.iter().map(|name| name.to_lowercase()));
        let overridden = self.arguments.iter().rev().find(|argument| argument.name == "hostname-override");
        if let Some(argument) = overridden.filter(|_| options.node_name.is_none()) {
            self.node.clone_from(&argument.value);
        }
        self.arguments.retain(|argument| argument.name != "hostname-override");
        self.node = self.node.trim().to_lowercase();
        if !is_subdomain(&self.node) {
            let reason = format!(
                "{:?} is no node name: lower-case letters, digits, '-' and '.', beginning and ending with a letter or a \
                 digit, 253 at most",
                self.node.chars().take(300).collect::<String>()
            );
            return Err(JoinError::request("--node-name", reason));
        }
        for argument in &self.arguments {
            // kubeadm-flags.env is cut at white space by systemd, whatever the quotes.
            if argument.value.chars().any(|c| c.is_whitespace() || c.is_control() || "\"'\\$".contains(c)) {
                let reason = "white space, quotes, '\\' and '$' can't be passed in kubeadm-flags.env";
                return Err(JoinError::request(&argument.place, reason));
            }
        }
        Ok(self)
    }

    /// What the machine's agent is started with, beside the files: kubeadm's own arguments, then those given.
    pub fn flags(&self) -> Vec<String> {
        let given = |name: &str| self.arguments.iter().any(|argument| argument.name == name);
        let mut flags = Vec::new();
        if self.node != self.hostname {
            flags.push(format!("--hostname-override={}", self.node));
        }
        if !self.taints.is_empty() && !given("register-with-taints") {
            let taints: Vec<String> = self.taints.iter().map(taint).collect();
            flags.push(format!("--register-with-taints={}", taints.join(",")));
        }
        flags.extend(self.arguments.iter().map(ToString::to_string));
        flags
    }
}

/// A token discovery, checked; `place` is where the address was given.
pub(crate) fn by_token(
    endpoint: &str,
    token: &str,
    hashes: &[String],
    skip_verification: bool,
    place: &str,
) -> Result<Discovery, JoinError> {
    let endpoint = Endpoint::parse(endpoint).map_err(|reason| JoinError::request(place, reason))?;
    let token = Token::parse(token)?;
    let pins = Pins::parse(hashes)?;
    if pins.is_empty() && !skip_verification {
        return Err(JoinError::PinMissing);
    }
    Ok(Discovery::Token { endpoint: endpoint.to_string(), token, pins })
}

/// A runtime's socket as kubeadm takes it, with its scheme.
pub(crate) fn cri_socket(text: &str) -> Result<String, String> {
    let path = text.strip_prefix("unix://").unwrap_or(text);
    if !path.starts_with('/') {
        return Err(format!("{text:?} is not of the form unix:///run/containerd/containerd.sock"));
    }
    Ok(format!("unix://{path}"))
}

/// `KEY=VALUE:EFFECT` (`kubernetes@v1.37.2:api/core/v1/taint.go#ToString`).
fn taint(taint: &Taint) -> String {
    match taint.value.as_deref().filter(|value| !value.is_empty()) {
        Some(value) => format!("{}={value}:{}", taint.key, taint.effect),
        None => format!("{}:{}", taint.key, taint.effect),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            endpoint: Some("10.0.0.1:6443".into()),
            token: Some("abcdef.0123456789abcdef".into()),
            skip_verification: true,
            ..Options::default()
        }
    }

    fn refused(change: impl FnOnce(&mut Options)) -> String {
        let mut options = options();
        change(&mut options);
        Request::from_options(&options, "Host").expect_err("refused").to_string()
    }

    #[test]
    fn options_become_a_request() {
        let options = Options {
            hashes: vec![format!("sha256:{}", "a".repeat(64))],
            node_name: Some("Node-1".into()),
            node_ip: Some("10.0.0.7".parse().expect("an address")),
            ..options()
        };
        let request = Request::from_options(&options, "host").expect("a request");
        assert_eq!((request.node.as_str(), request.hostname.as_str()), ("node-1", "host"));
        assert_eq!(request.flags(), ["--hostname-override=node-1", "--node-ip=10.0.0.7"]);
        assert!(matches!(request.discovery, Discovery::Token { pins, .. } if !pins.is_empty()));
    }

    #[test]
    fn a_host_by_its_own_name_needs_no_flags() {
        let request = Request::from_options(&options(), "host").expect("a request");
        assert!(request.flags().is_empty());
    }

    #[test]
    fn what_cannot_be_meant_is_one_sentence_with_the_option() {
        assert!(refused(|o| o.endpoint = None).starts_with("HOST:PORT: is missing"));
        assert!(refused(|o| o.endpoint = Some("10.0.0.1".into())).contains("names no port"));
        assert!(refused(|o| o.token = None).starts_with("--token: is missing"));
        assert!(refused(|o| o.token = Some("abc".into())).starts_with("--token: not of the form"));
        assert!(refused(|o| o.hashes = vec!["sha256:1".into()]).contains("64 hexadecimal digits"));
        assert!(refused(|o| o.skip_verification = false).contains("--discovery-token-unsafe-skip-ca-verification"));
        assert!(refused(|o| o.discovery_file = Some("a".into())).starts_with("--discovery-file"));
        assert!(refused(|o| o.cri_socket = Some("tcp://a".into())).starts_with("--cri-socket"));
        for bad in ["a_b", "-a", "a-", "a..b", "ü", &"a".repeat(254), "a/../b"] {
            assert!(refused(|o| o.node_name = Some(bad.into())).starts_with("--node-name"), "{bad}");
        }
    }

    #[test]
    fn a_file_excludes_what_it_holds() {
        let request = Request::from_options(&options(), "host").expect("a request");
        let error = request.clone().with_file_options(&options()).expect_err("mixed").to_string();
        assert!(error.contains("[HOST:PORT token discovery-token-unsafe-skip-ca-verification]"), "{error}");
        let name = Options { node_name: Some("other".into()), ..Options::default() };
        assert_eq!(request.with_file_options(&name).expect("allowed").node, "other");
    }

    #[test]
    fn taints_become_a_flag_and_dangerous_values_none() {
        let mut request = Request::from_options(&options(), "host").expect("a request");
        let new = |key: &str, value: Option<&str>| Taint {
            key: key.into(),
            value: value.map(str::to_owned),
            effect: "NoSchedule".into(),
            ..Taint::default()
        };
        request.taints = vec![new("a", Some("b")), new("c", None)];
        assert_eq!(request.flags(), ["--register-with-taints=a=b:NoSchedule,c:NoSchedule"]);
        let argument = Argument { name: "node-labels".into(), value: "a=b c".into(), place: "here".into() };
        request.arguments.push(argument);
        let error = request.with_file_options(&Options::default()).expect_err("refused").to_string();
        assert!(error.starts_with("here: white space"), "{error}");
    }
}
