//! Where a registry is reached: containerd's `certs.d/<host>/hosts.toml`, read afresh for every pull.
//!
//! The folder of a registry is `<host>`, `<host>_<port>_` or `<host>:<port>`, else `_default`. Hosts are tried in the
//! order of the file, the upstream `server` last. Without any file a registry is reached by https, and by plain http
//! when it is on loopback.
//! (<https://github.com/containerd/containerd/blob/main/docs/hosts.md>)

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use http::header::{HeaderName, HeaderValue};

use crate::error::PullError;

mod file;

/// How much of a `hosts.toml` is read.
const FILE_LIMIT: u64 = 256 << 10;

/// `--registry-config-dir`: the folder that holds one folder per registry.
#[derive(Debug, Clone, Default)]
pub struct RegistryConfig {
    dir: Option<PathBuf>,
}

/// One address at which a registry's content is asked for.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// `http` or `https`.
    pub scheme: String,
    /// `host` or `host:port`.
    pub authority: String,
    /// Path before `/<repository>/…`, normally `/v2`.
    pub path: String,
    /// May be asked for what a tag points to.
    pub resolve: bool,
    /// May be asked for content by digest.
    pub pull: bool,
    /// Not the upstream: asked with `?ns=`, and never given the upstream's credentials.
    pub mirror: bool,
    /// Headers to add to every request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Limit for the connection to be made.
    pub dial_timeout: Option<Duration>,
    /// TLS settings.
    pub tls: Tls,
}

/// TLS settings of one endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Accept any certificate.
    pub skip_verify: bool,
    /// PEM files of certificate authorities, in addition to the system's.
    pub ca: Vec<PathBuf>,
    /// PEM files of client certificate and key (the same file when it holds both).
    pub client: Option<(PathBuf, PathBuf)>,
}

impl RegistryConfig {
    /// Reads from `dir`; a folder that is not there means no configuration.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: Some(dir.into()) }
    }

    /// No configuration: https, plain http on loopback.
    pub fn none() -> Self {
        Self::default()
    }

    /// The endpoints for `registry` (as the image names it) in the order to try them.
    ///
    /// # Errors
    /// [`PullError::Config`] naming file and key.
    pub fn endpoints(&self, registry: &str) -> Result<Vec<Endpoint>, PullError> {
        let Some(dir) = &self.dir else { return Ok(vec![upstream(registry)]) };
        for name in folder_names(registry) {
            let path = dir.join(name).join("hosts.toml");
            if let Some(text) = read(&path)? {
                return file::parse(&text, registry, path.parent().unwrap_or(dir))
                    .map_err(|reason| PullError::Config { file: path, reason: one_line(&reason) });
            }
        }
        Ok(vec![upstream(registry)])
    }
}

impl Endpoint {
    /// `scheme://authority/path/rest`, with `?ns=` for a mirror.
    pub(crate) fn url(&self, registry: &str, rest: &str) -> String {
        let query = if self.mirror { format!("?ns={registry}") } else { String::new() };
        format!("{}://{}{}/{rest}{query}", self.scheme, self.authority, self.path)
    }
}

/// The endpoint of a registry about which nothing is configured.
fn upstream(registry: &str) -> Endpoint {
    let authority = match registry {
        "docker.io" | "index.docker.io" => "registry-1.docker.io",
        other => other,
    };
    let scheme = if is_loopback(authority) { "http" } else { "https" };
    Endpoint {
        scheme: scheme.into(),
        authority: authority.into(),
        path: "/v2".into(),
        resolve: true,
        pull: true,
        mirror: false,
        headers: Vec::new(),
        dial_timeout: None,
        tls: Tls::default(),
    }
}

/// `localhost`, `127.0.0.0/8` or `[::1]`, with or without a port.
fn is_loopback(authority: &str) -> bool {
    let host = format!("http://{authority}/").parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
    let Some(host) = host else { return false };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The folders that may hold a registry's file, best first. A reference can't hold a slash in its registry; a folder
/// outside must be unreachable even if it could.
fn folder_names(registry: &str) -> Vec<String> {
    let mut names = Vec::new();
    if !registry.contains('/') && !registry.starts_with('.') {
        if let Some((host, port)) = registry.rsplit_once(':') {
            names.push(format!("{host}_{port}_"));
        }
        names.push(registry.to_owned());
    }
    names.push("_default".to_owned());
    names
}

fn read(path: &Path) -> Result<Option<String>, PullError> {
    let fail = |reason: String| PullError::Config { file: path.to_path_buf(), reason };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(fail(error.to_string())),
    };
    let mut text = String::new();
    file.take(FILE_LIMIT + 1).read_to_string(&mut text).map_err(|error| fail(error.to_string()))?;
    if text.len() as u64 > FILE_LIMIT {
        return Err(fail(format!("is larger than {FILE_LIMIT} bytes")));
    }
    Ok(Some(text))
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
