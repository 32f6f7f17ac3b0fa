//! Which kernel parameters a sandbox may set: those of a namespace that is its own.
//!
//! Whether a parameter is safe for a pod is the kubelet's decision (allowedUnsafeSysctls); here only its reach counts.

use std::collections::{BTreeMap, HashMap};

use berth_guard::Guard;

use super::NamespaceScope;
use crate::error::ConfigError;
use crate::parameters;

/// Checks the parameters and adds containerd's defaults: any port and ping sockets need no capability inside the pod.
///
/// Names come back in the dot form: parts separated by dots, a dot inside a part (`eth0.1`) written as a slash, which is
/// what sysctl.d(5) and the kubelet do. Swapping the two characters gives the path under /proc/sys.
pub(super) fn compile(
    wanted: &HashMap<String, String>,
    network: NamespaceScope,
    ipc: NamespaceScope,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut sysctls = BTreeMap::new();
    for (name, value) in wanted {
        let path = path(name)?;
        check(name, &path, value, network, ipc)?;
        sysctls.insert(swap(&path), value.clone());
    }
    if network == NamespaceScope::Pod {
        for (name, value) in
            [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")]
        {
            sysctls.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    Ok(sysctls.into_iter().collect())
}

fn field(name: &str) -> String {
    format!("linux.sysctls[{name:?}]")
}

fn swap(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect()
}

/// The path under /proc/sys; the first separator of a name says which form it is in.
fn path(name: &str) -> Result<String, ConfigError> {
    let path = match name.find(['.', '/']) {
        Some(at) if name[at..].starts_with('.') => swap(name),
        _ => name.to_owned(),
    };
    let plain = path.split('/').all(|part| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '@'))
    });
    if plain && path.contains('/') {
        return Ok(path);
    }
    Err(ConfigError::new(
        field(name),
        "it is not the name of a parameter",
        "use plain parts separated by dots or slashes",
    ))
}

fn check(name: &str, path: &str, value: &str, network: NamespaceScope, ipc: NamespaceScope) -> Result<(), ConfigError> {
    // CVE-2022-0811: a value that smuggles a second parameter through a helper's `name=value+name=value` list. No helper
    // is used here, and it stays refused.
    if value.contains(['+', '=', '\n', '\r', '\0']) && Guard::PlainSysctls.stands() {
        return Err(ConfigError::new(
            field(name),
            format!("value {value:?} contains '+', '=', a line break or NUL"),
            "give a plain value",
        ));
    }
    let (scope, what, option) = if path.starts_with("net/") || path == "kernel/domainname" {
        (network, "network", "hostNetwork")
    } else if parameters::is_of_ipc(path) {
        (ipc, "IPC", "hostIPC")
    } else {
        return Err(ConfigError::new(
            field(name),
            "it belongs to no namespace of the pod, so this would change the node",
            "set it on the node",
        ));
    };
    if scope == NamespaceScope::Node {
        return Err(ConfigError::new(
            field(name),
            format!("the pod is in the node's {what} namespace, so this would change the node"),
            format!("drop the parameter or {option}"),
        ));
    }
    Ok(())
}
