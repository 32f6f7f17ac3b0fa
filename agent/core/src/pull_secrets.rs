//! Registry credentials from a pod's pull secrets.
//!
//! Source: `kubernetes@v1.37.2:pkg/credentialprovider/{config,keyring}.go`: Docker's configuration files, whose keys
//! are registries (with optional scheme, port, path prefix, and `*` within host labels).

use berth_cri_proto::v1::AuthConfig;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

const DOCKER_HUB: &str = "docker.io";

#[derive(Deserialize)]
struct DockerConfigJson {
    #[serde(default)]
    auths: std::collections::BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "lowercase")]
struct Entry {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
    registrytoken: String,
}

/// The credentials that `secrets` hold for `image`, the most specific first. A secret that can't be read counts as
/// empty, as it does for the kubelet.
pub fn credentials<'a>(secrets: impl IntoIterator<Item = &'a Secret>, image: &str) -> Vec<AuthConfig> {
    let (host, path) = split(image);
    let mut found: Vec<(usize, AuthConfig)> = Vec::new();
    for secret in secrets {
        for (registry, entry) in entries(secret) {
            let Some(rank) = matches(&registry, &host, &path) else { continue };
            let auth = AuthConfig {
                username: entry.username,
                password: entry.password,
                auth: entry.auth,
                server_address: registry,
                identity_token: entry.identitytoken,
                registry_token: entry.registrytoken,
            };
            found.push((rank, auth));
        }
    }
    // Stable: of two equally specific ones, the secret named first wins.
    found.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
    found.into_iter().map(|(_, auth)| auth).collect()
}

fn entries(secret: &Secret) -> Vec<(String, Entry)> {
    let data = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
    if let Some(bytes) = data(".dockerconfigjson") {
        return serde_json::from_slice::<DockerConfigJson>(bytes)
            .map(|c| c.auths.into_iter().collect())
            .unwrap_or_default();
    }
    let legacy = data(".dockercfg").and_then(|bytes| serde_json::from_slice(bytes).ok());
    legacy.map(|map: std::collections::BTreeMap<String, Entry>| map.into_iter().collect()).unwrap_or_default()
}

/// An image's registry and the rest of its name.
fn split(image: &str) -> (String, String) {
    match image.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (hub(first), rest.to_owned()),
        _ => (DOCKER_HUB.to_owned(), image.to_owned()),
    }
}

fn hub(host: &str) -> String {
    let known = matches!(host, "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com");
    if known { DOCKER_HUB.to_owned() } else { host.to_owned() }
}

/// How specific `registry` is for this image; `None` when it is for another.
fn matches(registry: &str, host: &str, path: &str) -> Option<usize> {
    let bare = registry.strip_prefix("https://").or_else(|| registry.strip_prefix("http://")).unwrap_or(registry);
    let (pattern, prefix) = bare.split_once('/').unwrap_or((bare, ""));
    let pattern = hub(pattern);
    // Docker's own keys end in an API version.
    let prefix = prefix.trim_end_matches('/');
    let prefix = if matches!(prefix, "v1" | "v2") { "" } else { prefix };
    let (pattern_host, pattern_port) = pattern.split_once(':').unwrap_or((&pattern, ""));
    let (image_host, image_port) = host.split_once(':').unwrap_or((host, ""));
    if pattern_port != image_port {
        return None;
    }
    let (wanted, found): (Vec<&str>, Vec<&str>) = (pattern_host.split('.').collect(), image_host.split('.').collect());
    let hosts = wanted.len() == found.len() && wanted.iter().zip(&found).all(|(wanted, found)| glob(wanted, found));
    let within = prefix.is_empty()
        || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']));
    (hosts && within).then_some(bare.len())
}

/// `*` stands for any part of a host label.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| glob(after, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(registries: &[&str]) -> Secret {
        let auths: serde_json::Map<String, serde_json::Value> =
            registries.iter().map(|r| ((*r).to_owned(), serde_json::json!({"username": r, "password": "p"}))).collect();
        let json = serde_json::json!({ "auths": auths }).to_string();
        Secret {
            data: Some([(".dockerconfigjson".to_owned(), ByteString(json.into_bytes()))].into()),
            ..Secret::default()
        }
    }

    #[test]
    fn registries_match_as_the_kubelet_matches_them() {
        let rows: &[(&[&str], &str, &[&str])] = &[
            (&["reg.example"], "reg.example/a/b:1", &["reg.example"]),
            (&["https://reg.example/v1/"], "reg.example/a", &["https://reg.example/v1/"]),
            (&["reg.example"], "other.example/a", &[]),
            (&["reg.example:5000"], "reg.example/a", &[]),
            (&["reg.example:5000"], "reg.example:5000/a", &["reg.example:5000"]),
            (&["*.example"], "reg.example/a", &["*.example"]),
            (&["*.example"], "a.reg.example/a", &[]),
            (&["reg.example/a", "reg.example"], "reg.example/a/b@sha256:0", &["reg.example/a", "reg.example"]),
            (&["reg.example/a"], "reg.example/ab", &[]),
            (&["https://index.docker.io/v1/"], "busybox", &["https://index.docker.io/v1/"]),
            (&["docker.io"], "library/busybox:1", &["docker.io"]),
        ];
        for (registries, image, expected) in rows {
            let secret = secret(registries);
            let found = credentials([&secret], image);
            let names: Vec<&str> = found.iter().map(|auth| auth.username.as_str()).collect();
            assert_eq!(&names, expected, "{registries:?} for {image}");
        }
    }

    #[test]
    fn a_secret_that_is_none_is_empty() {
        let mut secret = secret(&[]);
        secret.data = Some([(".dockerconfigjson".to_owned(), ByteString(b"{".to_vec()))].into());
        assert!(credentials([&secret, &Secret::default()], "reg.example/a").is_empty());
    }
}
