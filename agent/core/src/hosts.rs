//! A pod's host name, and the `/etc/hosts` that its containers share.
//!
//! Source: `kubernetes@v1.37.2:pkg/kubelet/kubelet_pods.go#managedHostsFileContent, GeneratePodHostNameAndDomain`.

use std::fmt::Write;

use k8s_openapi::api::core::v1::{HostAlias, Pod, PodSpec};

use crate::names;

const HEADER: &str = "# Kubernetes-managed hosts file.\n";
const HEADER_HOST_NETWORK: &str = "# Kubernetes-managed hosts file (host network).\n";
/// What the kernel takes, `__NEW_UTS_LEN` less what DNS allows for a label.
const HOSTNAME_LIMIT: usize = 63;

/// A pod's host name and its domain (empty without a subdomain).
pub fn hostname(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let spec = pod.spec.as_ref();
    if let Some(name) = spec.and_then(|spec| spec.hostname_override.as_deref()).filter(|name| !name.is_empty()) {
        return (truncate(name), String::new());
    }
    let own = spec.and_then(|spec| spec.hostname.as_deref()).filter(|name| !name.is_empty());
    let host = truncate(own.unwrap_or_else(|| names::name(pod)));
    let domain = match spec.and_then(|spec| spec.subdomain.as_deref()).filter(|domain| !domain.is_empty()) {
        Some(subdomain) => format!("{subdomain}.{}.svc.{cluster_domain}", names::namespace(pod)),
        None => String::new(),
    };
    (host, domain)
}

/// The name that the kernel gets: the host name, or with `setHostnameAsFQDN` the whole one. `Err` is why it can't be.
pub fn kernel_hostname(spec: &PodSpec, host: &str, domain: &str) -> Result<String, String> {
    if spec.set_hostname_as_fqdn != Some(true) || domain.is_empty() {
        return Ok(host.to_owned());
    }
    let full = format!("{host}.{domain}");
    // `sethostname` takes 64 bytes.
    if full.len() > 64 {
        return Err(format!(
            "Failed to construct FQDN from Pod hostname and cluster domain, FQDN {full} is too long (64 characters is the max, {} characters requested)",
            full.len()
        ));
    }
    Ok(full)
}

fn truncate(name: &str) -> String {
    if name.len() <= HOSTNAME_LIMIT {
        return name.to_owned();
    }
    let mut end = HOSTNAME_LIMIT;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].trim_end_matches(['-', '.']).to_owned()
}

/// The file of a pod with its own network.
pub fn content(ips: &[String], host: &str, domain: &str, aliases: &[HostAlias]) -> String {
    let mut out = String::from(HEADER);
    out.push_str("127.0.0.1\tlocalhost\n");
    out.push_str("::1\tlocalhost ip6-localhost ip6-loopback\n");
    out.push_str("fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n");
    for ip in ips {
        // Writing to a String can't fail.
        let _ = if domain.is_empty() {
            writeln!(out, "{ip}\t{host}")
        } else {
            writeln!(out, "{ip}\t{host}.{domain}\t{host}")
        };
    }
    push_aliases(&mut out, aliases);
    out
}

/// The file of a pod on the host's network: the host's own, and the aliases.
pub fn content_host_network(host_file: &str, aliases: &[HostAlias]) -> String {
    let mut out = String::from(HEADER_HOST_NETWORK);
    out.push_str(host_file);
    push_aliases(&mut out, aliases);
    out
}

fn push_aliases(out: &mut String, aliases: &[HostAlias]) {
    if aliases.is_empty() {
        return;
    }
    out.push_str("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let _ = writeln!(out, "{}\t{}", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "json! values read better by value")]
    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({"metadata": {"name": "web-0", "namespace": "shop"}, "spec": spec}))
            .expect("a pod")
    }

    #[test]
    fn host_names() {
        let long = "a".repeat(62);
        let rows = [
            (serde_json::json!({"containers": []}), "web-0", ""),
            (serde_json::json!({"containers": [], "hostname": "db"}), "db", ""),
            (serde_json::json!({"containers": [], "subdomain": "sub"}), "web-0", "sub.shop.svc.cluster.local"),
            (serde_json::json!({"containers": [], "subdomain": "sub", "hostnameOverride": "a.b"}), "a.b", ""),
            (serde_json::json!({"containers": [], "hostname": format!("{}-x", "a".repeat(62))}), long.as_str(), ""),
        ];
        for (spec, host, domain) in rows {
            assert_eq!(hostname(&pod(spec.clone()), "cluster.local"), (host.to_owned(), domain.to_owned()), "{spec}");
        }
    }

    #[test]
    fn a_full_name_that_the_kernel_refuses_is_said() {
        let pod = pod(serde_json::json!({"containers": [], "setHostnameAsFQDN": true}));
        let spec = pod.spec.as_ref().expect("a spec");
        assert_eq!(kernel_hostname(spec, "a", "b.c"), Ok("a.b.c".to_owned()));
        assert_eq!(kernel_hostname(spec, "a", ""), Ok("a".to_owned()));
        assert!(kernel_hostname(spec, "a", &"d".repeat(63)).is_err_and(|why| why.contains("too long")));
    }

    #[test]
    fn the_file_names_the_pod_and_its_aliases() {
        let alias = HostAlias { ip: "10.0.0.9".into(), hostnames: Some(vec!["x".into(), "y".into()]) };
        let text = content(&["10.1.0.2".into()], "web-0", "s.shop.svc.cluster.local", &[alias]);
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.contains("10.1.0.2\tweb-0.s.shop.svc.cluster.local\tweb-0\n"));
        assert!(text.ends_with("\n\n# Entries added by HostAliases.\n10.0.0.9\tx\ty\n"));
        assert!(content(&["10.1.0.2".into()], "web-0", "", &[]).ends_with("10.1.0.2\tweb-0\n"));
    }
}
