//! What is applied.

use crate::registry::{self, Registry};
use crate::scenario::web;

/// A Deployment of web servers.
pub(super) fn web(registry: &Registry, replicas: usize) -> String {
    web::deployment(registry, replicas) + "        ports: [{containerPort: 80}]\n"
}

/// A pod that says something and fails.
pub(super) fn crasher(registry: &Registry, name: &str) -> String {
    pod(registry, name, registry::BUSYBOX, Some("echo about to fail; exit 3"))
}

/// A pod of one container; `script` replaces the image's command.
pub(super) fn pod(registry: &Registry, name: &str, image: &str, script: Option<&str>) -> String {
    let image = registry.name(image);
    let command = script.map(|script| format!("    command: [sh, -c, \"{script}\"]\n")).unwrap_or_default();
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 5
  containers:
  - name: main
    image: {image}
{command}"
    )
}

/// A web server that the node's own `port` leads to.
pub(super) fn host_port(registry: &Registry, name: &str, port: u16) -> String {
    let pod = pod(registry, name, registry::WEB, None);
    format!("{pod}    ports: [{{containerPort: 80, hostPort: {port}}}]\n")
}
