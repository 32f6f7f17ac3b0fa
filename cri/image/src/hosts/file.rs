//! The text of one `hosts.toml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use http::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use toml::Spanned;

use super::{Endpoint, Tls, is_loopback, upstream};

#[derive(Deserialize)]
struct Document {
    server: Option<String>,
    #[serde(default)]
    host: BTreeMap<String, Spanned<Host>>,
    #[serde(flatten)]
    own: Host,
}

#[derive(Deserialize, Default)]
struct Host {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    client: Option<Client>,
    skip_verify: Option<bool>,
    header: Option<BTreeMap<String, OneOrMany>>,
    override_path: Option<bool>,
    dial_timeout: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Client {
    Combined(String),
    List(Vec<ClientEntry>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ClientEntry {
    Combined(String),
    Pair(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(value) => vec![value],
            Self::Many(values) => values,
        }
    }
}

/// The endpoints that `text` describes for `registry`; files are relative to `base`. The error names the key.
pub(super) fn parse(text: &str, registry: &str, base: &Path) -> Result<Vec<Endpoint>, String> {
    let document: Document = toml::from_str(text).map_err(|error| error.to_string())?;
    // A TOML table has no order, but the order of mirrors is the order of the file.
    let mut hosts: Vec<_> = document.host.into_iter().map(|(url, host)| (host.span().start, url, host)).collect();
    hosts.sort_by_key(|(start, ..)| *start);
    let mut endpoints = Vec::new();
    for (_, url, host) in hosts {
        endpoints.push(endpoint(&url, host.into_inner(), base).map_err(|error| format!("host.{url:?}: {error}"))?);
    }
    let server = document.server.filter(|server| !server.is_empty());
    let last = match &server {
        Some(url) => endpoint(url, document.own, base).map_err(|error| format!("server: {error}"))?,
        None => {
            let default = upstream(registry);
            let url = format!("{}://{}", default.scheme, default.authority);
            endpoint(&url, document.own, base)?
        }
    };
    // A host that is the upstream itself is no mirror of it; asking it twice would only slow a failure down.
    for host in &mut endpoints {
        host.mirror = host.authority != upstream(registry).authority && host.authority != registry;
    }
    if !endpoints.iter().any(|host| host.authority == last.authority && host.scheme == last.scheme && host.resolve) {
        endpoints.push(last);
    }
    Ok(endpoints)
}

fn endpoint(url: &str, host: Host, base: &Path) -> Result<Endpoint, String> {
    let full = if url.contains("://") {
        url.to_owned()
    } else if is_loopback(url.split('/').next().unwrap_or_default()) {
        format!("http://{url}")
    } else {
        format!("https://{url}")
    };
    let uri: Uri = full.parse().map_err(|error| format!("{url:?} is not an address: {error}"))?;
    let scheme = uri.scheme_str().unwrap_or_default();
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    if !matches!(scheme, "http" | "https") || authority.is_empty() || authority.contains('@') {
        return Err(format!("{url:?} is not an http or https address"));
    }
    let mut path = uri.path().trim_end_matches('/').to_owned();
    if !host.override_path.unwrap_or(false) && !path.ends_with("/v2") {
        path.push_str("/v2");
    }
    let (mut resolve, mut pull) = (true, true);
    if let Some(capabilities) = host.capabilities {
        (resolve, pull) = (false, false);
        for capability in capabilities {
            match capability.as_str() {
                "resolve" => resolve = true,
                "pull" => pull = true,
                "push" | "referrers" => {}
                other => return Err(format!("capabilities: {other:?} is none of pull, resolve, push, referrers")),
            }
        }
    }
    let mut headers = Vec::new();
    for (name, values) in host.header.unwrap_or_default() {
        let parsed: HeaderName = name.parse().map_err(|_| format!("header: {name:?} is not a header name"))?;
        for value in values.into_vec() {
            let mut value = HeaderValue::from_str(&value).map_err(|_| format!("header.{name}: not a header value"))?;
            value.set_sensitive(true);
            headers.push((parsed.clone(), value));
        }
    }
    Ok(Endpoint {
        scheme: scheme.to_owned(),
        authority: authority.to_owned(),
        path,
        resolve,
        pull,
        mirror: false,
        headers,
        dial_timeout: host.dial_timeout.map(|text| duration(&text)).transpose()?,
        tls: Tls {
            skip_verify: host.skip_verify.unwrap_or(false),
            ca: host.ca.map(OneOrMany::into_vec).unwrap_or_default().iter().map(|file| base.join(file)).collect(),
            client: host.client.map(client).transpose()?.flatten().map(|(cert, key)| (base.join(cert), base.join(key))),
        },
    })
}

/// containerd allows several pairs; TLS presents one, so more than one is refused instead of ignored.
fn client(client: Client) -> Result<Option<(PathBuf, PathBuf)>, String> {
    let entries = match client {
        Client::Combined(file) => return Ok(Some((file.clone().into(), file.into()))),
        Client::List(entries) => entries,
    };
    let mut entries = entries.into_iter();
    match (entries.next(), entries.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err("client: more than one client certificate".into()),
        (Some(ClientEntry::Combined(file)), None) => Ok(Some((file.clone().into(), file.into()))),
        (Some(ClientEntry::Pair(pair)), None) => match <[String; 2]>::try_from(pair) {
            Ok([certificate, key]) => Ok(Some((certificate.into(), key.into()))),
            Err(_) => Err("client: a pair is [certificate, key]".into()),
        },
    }
}

/// A Go duration of one unit: `500ms`, `3s`, `1m`.
fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| format!("dial_timeout: {text:?} is not a duration such as 3s"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(format!("dial_timeout: {text:?} is not a duration such as 3s")),
    }
}
