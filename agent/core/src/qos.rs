//! The quality-of-service class of a pod.
//!
//! Source: `kubernetes@v1.37.2:pkg/apis/core/v1/helper/qos/qos.go`.

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};

use crate::quantity;

/// Guaranteed, Burstable or BestEffort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Every container has limits for CPU and memory, and requests equal to them.
    Guaranteed,
    /// Anything between.
    Burstable,
    /// No container asks for CPU or memory.
    BestEffort,
}

impl Class {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// The class of a pod.
pub fn class(spec: &PodSpec) -> Class {
    let mut found: Option<Class> = None;
    for container in containers(spec) {
        let this = container.resources.as_ref().map_or(Class::BestEffort, of_requirements);
        match found {
            _ if this == Class::Burstable => return Class::Burstable,
            None => found = Some(this),
            Some(other) if other != this => return Class::Burstable,
            Some(_) => {}
        }
    }
    found.unwrap_or(Class::BestEffort)
}

/// Init containers, then main containers.
pub fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

fn of_requirements(requirements: &ResourceRequirements) -> Class {
    let read = |map: &Option<std::collections::BTreeMap<_, _>>, name: &str| -> i64 {
        let text: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity> =
            map.as_ref().and_then(|map| map.get(name));
        text.and_then(|quantity| quantity::milli(&quantity.0)).unwrap_or(0)
    };
    let pair = |name: &str| (read(&requirements.requests, name), read(&requirements.limits, name));
    let resources = [pair("cpu"), pair("memory")];
    if resources.iter().all(|(request, limit)| *request <= 0 && *limit <= 0) {
        return Class::BestEffort;
    }
    // A request that is absent defaults to the limit (the API server fills it in; static pods may come without).
    let guaranteed = resources.iter().all(|(request, limit)| *limit > 0 && (*request == *limit || *request == 0));
    if guaranteed { Class::Guaranteed } else { Class::Burstable }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(containers: &[&str]) -> PodSpec {
        let containers: Vec<serde_json::Value> = containers
            .iter()
            .enumerate()
            .map(|(n, resources)| {
                let resources: serde_json::Value = serde_json::from_str(resources).expect("JSON");
                serde_json::json!({"name": format!("c{n}"), "resources": resources})
            })
            .collect();
        serde_json::from_value(serde_json::json!({ "containers": containers })).expect("a spec")
    }

    #[test]
    fn classes() {
        const FULL: &str = r#"{"requests":{"cpu":"100m","memory":"1Mi"},"limits":{"cpu":"0.1","memory":"1024Ki"}}"#;
        const LIMITS: &str = r#"{"limits":{"cpu":"1","memory":"1Gi"}}"#;
        const SOME: &str = r#"{"requests":{"cpu":"100m"}}"#;
        const LESS: &str = r#"{"requests":{"cpu":"1","memory":"1Mi"},"limits":{"cpu":"1","memory":"2Mi"}}"#;
        const OTHER: &str = r#"{"requests":{"ephemeral-storage":"1Gi"}}"#;
        const ZERO: &str = r#"{"requests":{"cpu":"0"}}"#;
        let rows: &[(&[&str], Class)] = &[
            (&["{}"], Class::BestEffort),
            (&[OTHER], Class::BestEffort),
            (&[ZERO], Class::BestEffort),
            (&[FULL], Class::Guaranteed),
            (&[FULL, LIMITS], Class::Guaranteed),
            (&[FULL, "{}"], Class::Burstable),
            (&["{}", FULL], Class::Burstable),
            (&[SOME], Class::Burstable),
            (&[LESS], Class::Burstable),
        ];
        for (containers, expected) in rows {
            assert_eq!(class(&spec(containers)), *expected, "{containers:?}");
        }
    }
}
