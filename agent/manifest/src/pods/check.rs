//! What the API server would have refused and a pod from a file must not have either.
//!
//! Only what would otherwise fail later in a way that does not name the manifest; fields that Berth does not implement
//! are refused by agent/core, with the same words for pods from everywhere.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume};

use crate::name::{is_label, is_subdomain};

/// A field and what is wrong with it.
type Mistake = (String, String);

pub(super) fn check(pod: &Pod) -> Result<(), Mistake> {
    let refuse = |field: &str, reason: &str| Err((field.to_owned(), reason.to_owned()));
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if name.is_empty() {
        return refuse("metadata.name", "missing");
    }
    if !is_subdomain(name) {
        return refuse("metadata.name", "must be lower-case letters, digits, '-' and '.', at most 253 of them");
    }
    if let Some(namespace) = pod.metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty())
        && !is_label(namespace)
    {
        return refuse("metadata.namespace", "must be lower-case letters, digits and '-', at most 63 of them");
    }
    let Some(spec) = &pod.spec else { return refuse("spec", "missing") };
    if spec.containers.is_empty() {
        return refuse("spec.containers", "at least one container is needed");
    }
    containers(spec)?;
    volumes(spec)?;
    if let Some(policy) = spec.restart_policy.as_deref().filter(|p| !matches!(*p, "Always" | "OnFailure" | "Never")) {
        return refuse("spec.restartPolicy", &format!("{policy:?} is none of Always, OnFailure, Never"));
    }
    references(spec)
}

fn containers(spec: &PodSpec) -> Result<(), Mistake> {
    let mut names = BTreeSet::new();
    let lists = [("containers", Some(&spec.containers)), ("initContainers", spec.init_containers.as_ref())];
    for (list, containers) in lists {
        for (index, container) in containers.into_iter().flatten().enumerate() {
            let field = |below: &str| format!("spec.{list}[{index}].{below}");
            if container.name.is_empty() {
                return Err((field("name"), "missing".to_owned()));
            }
            if !is_label(&container.name) {
                return Err((
                    field("name"),
                    "must be lower-case letters, digits and '-', at most 63 of them".to_owned(),
                ));
            }
            if !names.insert(container.name.as_str()) {
                return Err((field("name"), format!("{:?} is used twice", container.name)));
            }
            if container.image.as_deref().unwrap_or_default().trim().is_empty() {
                return Err((field("image"), "missing".to_owned()));
            }
            mounts(spec, container, &field)?;
        }
    }
    Ok(())
}

fn mounts(spec: &PodSpec, container: &Container, field: &dyn Fn(&str) -> String) -> Result<(), Mistake> {
    let mut paths = BTreeSet::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        if !spec.volumes.iter().flatten().any(|volume| volume.name == mount.name) {
            return Err((
                field(&format!("volumeMounts[{index}].name")),
                format!("the pod has no volume {:?}", mount.name),
            ));
        }
        if !paths.insert(mount.mount_path.as_str()) {
            return Err((
                field(&format!("volumeMounts[{index}].mountPath")),
                format!("{:?} is used twice", mount.mount_path),
            ));
        }
    }
    for (index, port) in container.ports.iter().flatten().enumerate() {
        let valid = |port: i32| (1..=65535).contains(&port);
        if !valid(port.container_port) {
            let below = format!("ports[{index}].containerPort");
            return Err((field(&below), format!("{} is not between 1 and 65535", port.container_port)));
        }
        if let Some(host) = port.host_port.filter(|host| *host != 0 && !valid(*host)) {
            return Err((field(&format!("ports[{index}].hostPort")), format!("{host} is not between 1 and 65535")));
        }
    }
    Ok(())
}

fn volumes(spec: &PodSpec) -> Result<(), Mistake> {
    let mut names = BTreeSet::new();
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let field = format!("spec.volumes[{index}].name");
        if !is_label(&volume.name) {
            return Err((field, "must be lower-case letters, digits and '-', at most 63 of them".to_owned()));
        }
        if !names.insert(volume.name.as_str()) {
            return Err((field, format!("{:?} is used twice", volume.name)));
        }
    }
    Ok(())
}

/// A pod from a file must not depend on the API server (`kubernetes@v1.37.2:pkg/api/pod#HasAPIObjectReference`).
fn references(spec: &PodSpec) -> Result<(), Mistake> {
    let refuse = |field: String, what: &str| Err((field, format!("static pods may not reference {what}")));
    let account = spec.service_account_name.as_deref().or(spec.service_account.as_deref()).unwrap_or_default();
    if !account.is_empty() {
        return refuse("spec.serviceAccountName".to_owned(), "serviceaccounts");
    }
    if spec.image_pull_secrets.iter().flatten().next().is_some() {
        return refuse("spec.imagePullSecrets".to_owned(), "secrets");
    }
    if spec.resource_claims.iter().flatten().next().is_some() {
        return refuse("spec.resourceClaims".to_owned(), "resourceclaims");
    }
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        if let Some((field, what)) = volume_reference(volume) {
            return refuse(format!("spec.volumes[{index}].{field}"), what);
        }
    }
    let lists = [("containers", Some(&spec.containers)), ("initContainers", spec.init_containers.as_ref())];
    for (list, containers) in lists {
        for (index, container) in containers.into_iter().flatten().enumerate() {
            if let Some((field, what)) = container_reference(container) {
                return refuse(format!("spec.{list}[{index}].{field}"), what);
            }
        }
    }
    Ok(())
}

fn volume_reference(volume: &Volume) -> Option<(String, &'static str)> {
    if volume.config_map.is_some() {
        return Some(("configMap".to_owned(), "configmaps"));
    }
    if volume.secret.is_some() {
        return Some(("secret".to_owned(), "secrets"));
    }
    if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() {
        return Some(("persistentVolumeClaim".to_owned(), "persistentvolumeclaims"));
    }
    let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    for (index, source) in sources.enumerate() {
        let found = match source {
            source if source.config_map.is_some() => ("configMap", "configmaps"),
            source if source.secret.is_some() => ("secret", "secrets"),
            source if source.service_account_token.is_some() => ("serviceAccountToken", "serviceaccounts"),
            source if source.cluster_trust_bundle.is_some() => ("clusterTrustBundle", "clustertrustbundles"),
            source if source.pod_certificate.is_some() => ("podCertificate", "podcertificates"),
            _ => continue,
        };
        return Some((format!("projected.sources[{index}].{}", found.0), found.1));
    }
    None
}

fn container_reference(container: &Container) -> Option<(String, &'static str)> {
    for (index, source) in container.env_from.iter().flatten().enumerate() {
        if source.config_map_ref.is_some() {
            return Some((format!("envFrom[{index}].configMapRef"), "configmaps"));
        }
        if source.secret_ref.is_some() {
            return Some((format!("envFrom[{index}].secretRef"), "secrets"));
        }
    }
    for (index, variable) in container.env.iter().flatten().enumerate() {
        let Some(source) = &variable.value_from else { continue };
        if source.config_map_key_ref.is_some() {
            return Some((format!("env[{index}].valueFrom.configMapKeyRef"), "configmaps"));
        }
        if source.secret_key_ref.is_some() {
            return Some((format!("env[{index}].valueFrom.secretKeyRef"), "secrets"));
        }
    }
    None
}
