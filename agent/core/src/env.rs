//! A container's environment, from all its sources.
//!
//! Source: `kubernetes@v1.37.2:pkg/kubelet/kubelet_pods.go#makeEnvironmentVariables`, `pkg/kubelet/envvars`,
//! `pkg/fieldpath`, `pkg/api/v1/resource`.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVarSource, Pod, PodSpec, ResourceFieldSelector, Secret, Service,
};

use crate::expansion::expand;
use crate::resources::amount;
use crate::{names, quantity};

/// Objects that a container's environment refers to, by name in the pod's namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct References {
    /// ConfigMaps.
    pub config_maps: Vec<String>,
    /// Secrets.
    pub secrets: Vec<String>,
}

/// What was found of them. A name without an entry is known not to exist.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// By name.
    pub config_maps: BTreeMap<String, Arc<ConfigMap>>,
    /// By name.
    pub secrets: BTreeMap<String, Arc<Secret>>,
    /// Services of the pod's namespace, and `kubernetes` of `default`.
    pub services: Vec<Arc<Service>>,
}

/// What the node and the runtime know about the pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The node's name.
    pub node_name: String,
    /// The node's addresses.
    pub host_ips: Vec<String>,
    /// The pod's addresses.
    pub pod_ips: Vec<String>,
    /// What a container without limits may use: `cpu` in millicores, the rest in bytes.
    pub allocatable: BTreeMap<String, i64>,
}

/// Why an environment can't be made. All pass when the object appears.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// A ConfigMap or Secret does not exist.
    #[error("{kind} {name:?} not found")]
    Missing {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// It lacks a key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    MissingKey {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// A field reference that means nothing.
    #[error("{path}: {reason}")]
    Reference {
        /// `env[NAME].valueFrom…`.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A variable's name and value; a secret's bytes need not be UTF-8.
pub type Variable = (String, Vec<u8>);

/// The objects that `container` refers to.
pub fn references(container: &Container) -> References {
    let mut out = References::default();
    for from in container.env_from.iter().flatten() {
        out.config_maps.extend(from.config_map_ref.iter().map(|r| r.name.clone()));
        out.secrets.extend(from.secret_ref.iter().map(|r| r.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        out.config_maps.extend(source.config_map_key_ref.iter().map(|r| r.name.clone()));
        out.secrets.extend(source.secret_key_ref.iter().map(|r| r.name.clone()));
    }
    for list in [&mut out.config_maps, &mut out.secrets] {
        list.sort_unstable();
        list.dedup();
    }
    out
}

/// The environment of `container`: `envFrom`, overridden by `env` in the order declared, then service variables that
/// no one overrides.
pub fn variables(pod: &Pod, container: &Container, found: &Found, facts: &Facts) -> Result<Vec<Variable>, EnvError> {
    let services = service_variables(pod, &found.services);
    let mut out = Variables::default();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            match found.config_maps.get(&reference.name) {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        out.set(format!("{prefix}{key}"), value.clone().into_bytes());
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(EnvError::Missing { kind: "configmap", name: reference.name.clone() }),
            }
        }
        if let Some(reference) = &from.secret_ref {
            match found.secrets.get(&reference.name) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        out.set(format!("{prefix}{key}"), value.0.clone());
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(EnvError::Missing { kind: "secret", name: reference.name.clone() }),
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (variable.value.as_deref().unwrap_or_default(), &variable.value_from) {
            ("", Some(source)) => {
                match resolve(pod, container, source, found, facts).map_err(|error| at(error, &variable.name))? {
                    Some(value) => value,
                    // Optional and missing: the variable is left out.
                    None => continue,
                }
            }
            (text, _) => {
                expand(text, |name| out.text(name).or_else(|| services.get(name).map(String::as_str))).into_bytes()
            }
        };
        out.set(variable.name.clone(), value);
    }
    for (name, value) in &services {
        if !out.index.contains_key(name) {
            out.set(name.clone(), value.clone().into_bytes());
        }
    }
    Ok(out.list)
}

fn at(error: EnvError, variable: &str) -> EnvError {
    match error {
        EnvError::Reference { path, reason } => EnvError::Reference { path: format!("env[{variable}].{path}"), reason },
        other => other,
    }
}

/// Variables in the order of their first mention.
#[derive(Default)]
struct Variables {
    list: Vec<Variable>,
    index: BTreeMap<String, usize>,
}

impl Variables {
    fn set(&mut self, name: String, value: Vec<u8>) {
        match self.index.get(&name) {
            Some(at) => self.list[*at].1 = value,
            None => {
                self.index.insert(name.clone(), self.list.len());
                self.list.push((name, value));
            }
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.index.get(name).and_then(|at| std::str::from_utf8(&self.list[*at].1).ok())
    }
}

fn resolve(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    found: &Found,
    facts: &Facts,
) -> Result<Option<Vec<u8>>, EnvError> {
    if let Some(reference) = &source.field_ref {
        return field(pod, &reference.field_path, facts).map(|text| Some(text.into_bytes()));
    }
    if let Some(reference) = &source.resource_field_ref {
        return resource_field(pod, container, reference, facts).map(|text| Some(text.into_bytes()));
    }
    let missing_key = |kind, name: &str, key: &str| EnvError::MissingKey {
        kind,
        namespace: names::namespace(pod).to_owned(),
        name: name.to_owned(),
        key: key.to_owned(),
    };
    if let Some(reference) = &source.config_map_key_ref {
        let optional = reference.optional == Some(true);
        let Some(map) = found.config_maps.get(&reference.name) else {
            let error = EnvError::Missing { kind: "configmap", name: reference.name.clone() };
            return if optional { Ok(None) } else { Err(error) };
        };
        return match map.data.as_ref().and_then(|data| data.get(&reference.key)) {
            Some(value) => Ok(Some(value.clone().into_bytes())),
            None if optional => Ok(None),
            None => Err(missing_key("ConfigMap", &reference.name, &reference.key)),
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let optional = reference.optional == Some(true);
        let Some(secret) = found.secrets.get(&reference.name) else {
            let error = EnvError::Missing { kind: "secret", name: reference.name.clone() };
            return if optional { Ok(None) } else { Err(error) };
        };
        return match secret.data.as_ref().and_then(|data| data.get(&reference.key)) {
            Some(value) => Ok(Some(value.0.clone())),
            None if optional => Ok(None),
            None => Err(missing_key("Secret", &reference.name, &reference.key)),
        };
    }
    Ok(Some(Vec::new()))
}

/// One field of the pod, as `fieldRef` names it.
pub fn field(pod: &Pod, path: &str, facts: &Facts) -> Result<String, EnvError> {
    let spec = pod.spec.as_ref();
    let first = |list: &[String]| list.first().cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => names::name(pod).to_owned(),
        "metadata.namespace" => names::namespace(pod).to_owned(),
        "metadata.uid" => names::uid(pod).to_owned(),
        "spec.nodeName" => match spec.and_then(|spec| spec.node_name.clone()) {
            Some(name) if !name.is_empty() => name,
            _ => facts.node_name.clone(),
        },
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
        "status.hostIP" => first(&facts.host_ips),
        "status.hostIPs" => facts.host_ips.join(","),
        "status.podIP" => first(&facts.pod_ips),
        "status.podIPs" => facts.pod_ips.join(","),
        "metadata.labels" => quoted(pod.metadata.labels.as_ref()),
        "metadata.annotations" => quoted(pod.metadata.annotations.as_ref()),
        _ => {
            let (map, rest) = if let Some(rest) = path.strip_prefix("metadata.labels[") {
                (pod.metadata.labels.as_ref(), rest)
            } else if let Some(rest) = path.strip_prefix("metadata.annotations[") {
                (pod.metadata.annotations.as_ref(), rest)
            } else {
                return Err(bad_field(path, "unsupported field"));
            };
            let key = rest
                .strip_suffix(']')
                .and_then(|key| {
                    let quote = key.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
                    key.strip_prefix(quote)?.strip_suffix(quote)
                })
                .ok_or_else(|| bad_field(path, "the key must stand in quotes"))?;
            map.and_then(|map| map.get(key)).cloned().unwrap_or_default()
        }
    })
}

fn bad_field(path: &str, reason: &str) -> EnvError {
    EnvError::Reference { path: format!("valueFrom.fieldRef.fieldPath {path:?}"), reason: reason.to_owned() }
}

/// A map as `key="value"` lines, as the downward API writes it.
fn quoted(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

fn resource_field(
    pod: &Pod,
    container: &Container,
    reference: &ResourceFieldSelector,
    facts: &Facts,
) -> Result<String, EnvError> {
    let bad = |reason: String| EnvError::Reference { path: "valueFrom.resourceFieldRef".to_owned(), reason };
    let own = match reference.container_name.as_deref().filter(|name| !name.is_empty()) {
        None => container,
        Some(name) => all_containers(pod.spec.as_ref())
            .find(|candidate| candidate.name == name)
            .ok_or_else(|| bad(format!("container {name:?} not found")))?,
    };
    let resources = own.resources.as_ref();
    let (which, name) = reference
        .resource
        .split_once('.')
        .ok_or_else(|| bad(format!("unsupported container resource: {}", reference.resource)))?;
    let map = match which {
        "limits" => resources.and_then(|r| r.limits.as_ref()),
        "requests" => resources.and_then(|r| r.requests.as_ref()),
        _ => return Err(bad(format!("unsupported container resource: {}", reference.resource))),
    };
    if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !name.starts_with("hugepages-") {
        return Err(bad(format!("unsupported container resource: {}", reference.resource)));
    }
    let mut value = amount(map, name);
    if value == 0 && which == "limits" {
        value = facts.allocatable.get(name).copied().unwrap_or(0);
    }
    let divisor = reference.divisor.as_ref().map(|divisor| divisor.0.as_str()).filter(|text| !text.is_empty());
    // Both sides in thousandths for CPU, in units for the rest; rounded up.
    let divisor = match (divisor, name) {
        (Some(text), "cpu") => quantity::milli(text),
        (Some(text), _) => quantity::value(text),
        (None, _) => Some(0),
    }
    .ok_or_else(|| bad("divisor is no quantity".to_owned()))?;
    let divisor = match (divisor, name) {
        (0, "cpu") => 1000,
        (0, _) => 1,
        (set, _) => set,
    };
    if divisor < 0 {
        return Err(bad("divisor must be positive".to_owned()));
    }
    Ok(value.div_euclid(divisor).saturating_add(i64::from(value.rem_euclid(divisor) != 0)).to_string())
}

fn all_containers(spec: Option<&PodSpec>) -> impl Iterator<Item = &Container> {
    spec.into_iter().flat_map(crate::qos::containers)
}

/// Docker-style variables of the services that the pod may see.
fn service_variables(pod: &Pod, services: &[Arc<Service>]) -> BTreeMap<String, String> {
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let mut out = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let master = namespace == "default" && name == "kubernetes";
        let linked = links && namespace == names::namespace(pod);
        let Some(spec) = service.spec.as_ref().filter(|_| master || linked) else { continue };
        let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { continue };
        // The API server's own service wins over a namesake.
        let shadowed = name == "kubernetes"
            && !master
            && services.iter().any(|other| {
                other.metadata.namespace.as_deref() == Some("default")
                    && other.metadata.name.as_deref() == Some("kubernetes")
            });
        if shadowed {
            continue;
        }
        let prefix = name.replace('-', "_").to_uppercase();
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        out.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
        for (index, port) in spec.ports.iter().flatten().enumerate() {
            let number = port.port;
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let (lower, upper) = (protocol.to_lowercase(), protocol.to_uppercase());
            let url = format!("{lower}://{host}:{number}");
            if index == 0 {
                out.insert(format!("{prefix}_SERVICE_PORT"), number.to_string());
                out.insert(format!("{prefix}_PORT"), url.clone());
            }
            if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                let port_name = port_name.replace('-', "_").to_uppercase();
                out.insert(format!("{prefix}_SERVICE_PORT_{port_name}"), number.to_string());
            }
            let link = format!("{prefix}_PORT_{number}_{upper}");
            out.insert(format!("{link}_PROTO"), lower);
            out.insert(format!("{link}_PORT"), number.to_string());
            out.insert(format!("{link}_ADDR"), ip.to_owned());
            out.insert(link, url);
        }
    }
    out
}

#[cfg(test)]
mod tests;
