//! Lifecycle hooks.

use std::time::Duration;

use k8s_openapi::api::core::v1::{HTTPGetAction, LifecycleHandler};

use crate::exec::output;
use crate::get::{self, Get, GetError};
use crate::{Asked, Exec};

/// Why a hook failed. The words are for the container's status and the log: an event would show everybody what the
/// hook printed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// Its command failed.
    #[error("Exec lifecycle hook ([{}]) for Container {container:?} in Pod {pod:?} failed - error: {error}, message: {output:?}", command.join(" "))]
    Exec {
        /// What was run.
        command: Vec<String>,
        /// Where.
        container: String,
        /// Of which pod.
        pod: String,
        /// Why.
        error: String,
        /// What it printed.
        output: String,
    },
    /// Nobody answered.
    #[error("HTTP lifecycle hook ({path}) for Container {container:?} in Pod {pod:?} failed - error: {error}")]
    Http {
        /// What was asked for.
        path: String,
        /// Of which container.
        container: String,
        /// Of which pod.
        pod: String,
        /// Why.
        error: String,
    },
    /// It declares nothing that can be run; `tcpSocket` never could (the API deprecates it).
    #[error("Cannot run handler: no exec, httpGet or sleep in it")]
    Invalid,
}

/// Runs a hook to its end, however long that takes: its caller knows the limit. `pod` names the pod in errors. `Ok` has
/// something to tell people when an HTTPS hook was answered without TLS.
pub async fn hook(
    handler: &LifecycleHandler,
    pod: &str,
    asked: Asked<'_>,
    exec: &dyn Exec,
) -> Result<Option<String>, HookError> {
    let container = || asked.container.name.clone();
    if let Some(action) = &handler.exec {
        let command = action.command.clone().unwrap_or_default();
        let failed = |command, error, output| {
            Err(HookError::Exec { command, container: container(), pod: pod.to_owned(), error, output })
        };
        return match exec.exec(asked.id, &command, None).await {
            Ok(ran) if ran.code == 0 => Ok(None),
            Ok(ran) => {
                let stderr = String::from_utf8_lossy(&ran.stderr).into_owned();
                let error = format!("command '{}' exited with {}: {stderr}", command.join(" "), ran.code);
                failed(command, error, output(&ran))
            }
            Err(error) => failed(command, error.to_string(), String::new()),
        };
    }
    if let Some(action) = &handler.http_get {
        return http(action, asked).await.map_err(|error| HookError::Http {
            path: action.path.clone().unwrap_or_default(),
            container: container(),
            pod: pod.to_owned(),
            error,
        });
    }
    if let Some(action) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0))).await;
        return Ok(None);
    }
    Err(HookError::Invalid)
}

async fn http(action: &HTTPGetAction, asked: Asked<'_>) -> Result<Option<String>, String> {
    let get = Get::new(action, asked, "lifecycle")?;
    let words = |error: GetError| format!("Get {:?}: {error}", get.url());
    match get::send(&get).await {
        Ok(()) | Err(GetError::Body(_)) => Ok(None),
        Err(error @ GetError::Plain) => {
            if get::send(&get.plain()).await.is_err() {
                return Err(words(error));
            }
            let url = get.url();
            Ok(Some(format!("request to HTTPS lifecycle hook {url} got HTTP response, retry with HTTP succeeded")))
        }
        Err(error) => Err(words(error)),
    }
}
