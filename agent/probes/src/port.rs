//! A port by its number or by its name in the container.

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The number of a port. `Err` in the kubelet's words (`kubernetes@v1.37.2:pkg/probe/util.go#ResolveContainerPort`).
pub(crate) fn resolve(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|declared| declared.name.as_ref() == Some(name))
            .map(|declared| declared.container_port)
            .ok_or_else(|| format!("port {name:?} not found"))?,
    };
    u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| format!("invalid port number: {number}"))
}
