//! What the API server fills in (`kubernetes@v1.37.2:pkg/apis/core/v1/defaults.go`).

use k8s_openapi::api::core::v1::{
    Container, HTTPGetAction, LifecycleHandler, Pod, PodSecurityContext, PodSpec, Probe, ResourceRequirements, Volume,
    VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

fn default<T>(field: &mut Option<T>, value: T) {
    field.get_or_insert(value);
}

/// As [`default`], where an empty text also counts as absent.
fn default_text(field: &mut Option<String>, value: &str) {
    if field.as_deref().unwrap_or_default().is_empty() {
        *field = Some(value.to_owned());
    }
}

/// Completes a pod that did not pass through an API server.
pub fn set_defaults(pod: &mut Pod) {
    let Some(spec) = &mut pod.spec else { return };
    default_text(&mut spec.dns_policy, "ClusterFirst");
    default_text(&mut spec.restart_policy, "Always");
    default_text(&mut spec.scheduler_name, "default-scheduler");
    default(&mut spec.security_context, PodSecurityContext::default());
    default(&mut spec.termination_grace_period_seconds, 30);
    default(&mut spec.enable_service_links, true);
    spec.volumes.iter_mut().flatten().for_each(volume);
    let host_network = spec.host_network.unwrap_or(false);
    let PodSpec { containers, init_containers, .. } = spec;
    for container in containers.iter_mut().chain(init_containers.iter_mut().flatten()) {
        self::container(container, host_network);
    }
}

fn container(container: &mut Container, host_network: bool) {
    let image = container.image.as_deref().unwrap_or_default();
    default_text(&mut container.image_pull_policy, if is_latest(image) { "Always" } else { "IfNotPresent" });
    default_text(&mut container.termination_message_path, "/dev/termination-log");
    default_text(&mut container.termination_message_policy, "File");
    for port in container.ports.iter_mut().flatten() {
        default_text(&mut port.protocol, "TCP");
        if host_network && port.host_port.unwrap_or(0) == 0 {
            port.host_port = Some(port.container_port);
        }
    }
    let probes = [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    probes.into_iter().flatten().for_each(probe);
    if let Some(lifecycle) = &mut container.lifecycle {
        let handlers = [&mut lifecycle.post_start, &mut lifecycle.pre_stop];
        for LifecycleHandler { http_get, .. } in handlers.into_iter().flatten() {
            http_get.iter_mut().for_each(get);
        }
    }
    requests(container.resources.get_or_insert_default());
    for variable in container.env.iter_mut().flatten() {
        let Some(source) = &mut variable.value_from else { continue };
        if let Some(field) = &mut source.field_ref {
            default_text(&mut field.api_version, "v1");
        }
        if let Some(field) = &mut source.resource_field_ref {
            default(&mut field.divisor, Quantity("0".to_owned()));
        }
    }
}

/// A limit without a request is also the request.
fn requests(resources: &mut ResourceRequirements) {
    let Some(limits) = &resources.limits else { return };
    let requests = resources.requests.get_or_insert_default();
    for (name, amount) in limits {
        requests.entry(name.clone()).or_insert_with(|| amount.clone());
    }
}

fn probe(probe: &mut Probe) {
    let or = |field: &mut Option<i32>, value: i32| {
        if field.unwrap_or(0) == 0 {
            *field = Some(value);
        }
    };
    or(&mut probe.timeout_seconds, 1);
    or(&mut probe.period_seconds, 10);
    or(&mut probe.success_threshold, 1);
    or(&mut probe.failure_threshold, 3);
    probe.http_get.iter_mut().for_each(get);
    if let Some(grpc) = &mut probe.grpc {
        default(&mut grpc.service, String::new());
    }
}

fn get(action: &mut HTTPGetAction) {
    default_text(&mut action.path, "/");
    default_text(&mut action.scheme, "HTTP");
}

fn volume(volume: &mut Volume) {
    if let Some(source) = &mut volume.host_path {
        default(&mut source.type_, String::new());
    }
    if let Some(source) = &mut volume.config_map {
        default(&mut source.default_mode, 0o644);
    }
    if let Some(source) = &mut volume.secret {
        default(&mut source.default_mode, 0o644);
    }
    if let Some(source) = &mut volume.downward_api {
        default(&mut source.default_mode, 0o644);
        for item in source.items.iter_mut().flatten() {
            if let Some(field) = &mut item.field_ref {
                default_text(&mut field.api_version, "v1");
            }
        }
    }
    if let Some(source) = &mut volume.projected {
        default(&mut source.default_mode, 0o644);
        for part in source.sources.iter_mut().flatten() {
            projection(part);
        }
    }
    // A volume that names no source is an emptyDir.
    let bare = Volume { name: volume.name.clone(), ..Volume::default() };
    if *volume == bare {
        volume.empty_dir = Some(Default::default());
    }
}

fn projection(part: &mut VolumeProjection) {
    if let Some(token) = &mut part.service_account_token {
        default(&mut token.expiration_seconds, 3600);
    }
    for item in part.downward_api.iter_mut().flat_map(|source| source.items.iter_mut().flatten()) {
        if let Some(field) = &mut item.field_ref {
            default_text(&mut field.api_version, "v1");
        }
    }
}

/// Whether an image has the tag `latest`, said or implied.
fn is_latest(image: &str) -> bool {
    let (name, digest) = match image.split_once('@') {
        Some((name, _)) => (name, true),
        None => (image, false),
    };
    // A colon before the last slash is a registry's port.
    match name.rsplit('/').next().and_then(|last| last.split_once(':')) {
        Some((_, tag)) => tag == "latest",
        None => !digest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pull_policy_follows_the_tag() {
        for (image, latest) in [
            ("a", true),
            ("a:latest", true),
            ("a:1", false),
            ("r:5000/a", true),
            ("r:5000/a:1", false),
            ("a@sha256:00", false),
            ("a:latest@sha256:00", true),
        ] {
            assert_eq!(is_latest(image), latest, "{image}");
        }
    }
}
