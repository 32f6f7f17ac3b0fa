//! Status: whether pods can be run.

use std::collections::HashMap;
use std::sync::Arc;

use berth_cri_proto::v1 as cri;
use serde_json::json;
use tonic::Status;

use crate::places::text;
use crate::runtime::Runtime;
use crate::tasks::blocking;

pub(crate) async fn call(runtime: &Arc<Runtime>, request: cri::StatusRequest) -> Result<cri::StatusResponse, Status> {
    let work = Arc::clone(runtime);
    let looked = blocking(move || {
        let user_namespaces = work.user_namespaces.supported(&work.shim, &work.places.root).is_ok();
        (work.network.ready(), user_namespaces, work.handlers.features())
    });
    let (network, user_namespaces, handlers) = looked.await?;
    let network = match network {
        Ok(()) => condition("NetworkReady", None),
        Err(error) => condition("NetworkReady", Some(("NetworkPluginNotReady", error.to_string()))),
    };
    let recursive = runtime.facts.recursive_read_only;
    let handlers = handlers.into_iter().map(|(name, other)| {
        let features = match other {
            None => cri::RuntimeHandlerFeatures { recursive_read_only_mounts: recursive, user_namespaces },
            // The kernel's part and the runtime's. User namespaces of pods are the built-in runtime's alone.
            Some(other) => cri::RuntimeHandlerFeatures {
                recursive_read_only_mounts: recursive && other.recursive_read_only,
                user_namespaces: false,
            },
        };
        cri::RuntimeHandler { name, features: Some(features) }
    });
    Ok(cri::StatusResponse {
        status: Some(cri::RuntimeStatus { conditions: vec![condition("RuntimeReady", None), network] }),
        info: if request.verbose { info(runtime) } else { HashMap::new() },
        runtime_handlers: handlers.collect(),
        features: Some(cri::RuntimeFeatures { supplemental_groups_policy: true, ..cri::RuntimeFeatures::default() }),
    })
}

fn condition(name: &str, problem: Option<(&str, String)>) -> cri::RuntimeCondition {
    let status = problem.is_none();
    let (reason, message) = problem.unwrap_or_default();
    cri::RuntimeCondition { r#type: name.to_owned(), status, reason: reason.to_owned(), message }
}

fn info(runtime: &Runtime) -> HashMap<String, String> {
    let config = json!({
        "rootDir": text(&runtime.places.root),
        "stateDir": text(&runtime.places.state),
        "cniConfDir": text(&runtime.config.cni_conf_dir),
        "cgroupDriver": runtime.config.cgroup_driver.name(),
    });
    HashMap::from([("config".to_owned(), config.to_string())])
}
