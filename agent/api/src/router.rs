//! The paths, behind one gate.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use berth_pods::{LogError, Pods};
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;

use crate::access::{Authorizer, User, subresources, verb};
use crate::logs::{self, LogOptions, LogQuery};

#[derive(Debug, Clone)]
struct Node {
    pods: Arc<Pods>,
    authorizer: Arc<dyn Authorizer>,
}

pub(crate) fn router(pods: Arc<Pods>, authorizer: Arc<dyn Authorizer>) -> Router {
    let node = Node { pods, authorizer };
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/pods", get(list_pods))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(container_logs))
        .layer(middleware::from_fn_with_state(node.clone(), gate))
        .with_state(node)
}

/// Lets a request through whose user may do what it asks; any of the path's subresources is enough.
async fn gate(State(node): State<Node>, request: Request, next: Next) -> Response {
    let Some(user) = request.extensions().get::<User>().cloned() else {
        return (StatusCode::UNAUTHORIZED, "Unauthorized").into_response();
    };
    let verb = verb(request.method());
    let subresources = subresources(request.uri().path());
    for subresource in subresources {
        match node.authorizer.allowed(&user, verb, subresource).await {
            Ok(true) => return next.run(request).await,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(user = user.name, verb, subresource, error, "authorising a request");
                let text = format!(
                    "Authorization error (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])",
                    user.name,
                    subresources.join(" ")
                );
                return (StatusCode::INTERNAL_SERVER_ERROR, text).into_response();
            }
        }
    }
    let text = format!(
        "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])",
        user.name,
        subresources.join(" ")
    );
    (StatusCode::FORBIDDEN, text).into_response()
}

async fn list_pods(State(node): State<Node>) -> Json<List<Pod>> {
    let items = node.pods.list().into_iter().map(|view| {
        let mut pod = Arc::unwrap_or_clone(view.pod);
        pod.status = Some(view.status);
        pod
    });
    Json(List { items: items.collect(), ..List::default() })
}

async fn container_logs(
    State(node): State<Node>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    Query(query): Query<LogQuery>,
) -> Response {
    let options = match LogOptions::check(&query) {
        Ok(options) => options,
        Err(reason) => return (StatusCode::UNPROCESSABLE_ENTITY, reason).into_response(),
    };
    let path = match node.pods.log_path(&namespace, &pod, &container, options.previous) {
        Ok(path) => path,
        Err(error) => return (status_of(&error), error.to_string()).into_response(),
    };
    let running = running(Arc::clone(&node.pods), namespace, pod, container, path.clone());
    match logs::stream(&path, options, running).await {
        Ok(stream) => ([("content-type", "text/plain")], Body::from_stream(stream)).into_response(),
        Err(error) => {
            let text = format!("failed to open log file {}: {error}", path.display());
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

fn status_of(error: &LogError) -> StatusCode {
    match error {
        LogError::NoPod(_) | LogError::NoContainer { .. } => StatusCode::NOT_FOUND,
        LogError::Waiting { .. } | LogError::NoPrevious { .. } => StatusCode::BAD_REQUEST,
    }
}

/// Whether the instance that writes the log at `path` still runs: what ends a followed log.
fn running(
    pods: Arc<Pods>,
    namespace: String,
    pod: String,
    container: String,
    path: std::path::PathBuf,
) -> impl Fn() -> bool + Send + Sync + 'static {
    move || {
        if pods.log_path(&namespace, &pod, &container, false).ok().as_ref() != Some(&path) {
            return false;
        }
        let views = pods.list();
        let view = views.iter().find(|view| {
            view.pod.metadata.name.as_deref() == Some(&pod) && view.pod.metadata.namespace.as_deref() == Some(&namespace)
        });
        let Some(view) = view else { return false };
        let status = &view.status;
        [&status.container_statuses, &status.init_container_statuses]
            .into_iter()
            .flatten()
            .flatten()
            .find(|status| status.name == container)
            .and_then(|status| status.state.as_ref())
            .is_some_and(|state| state.running.is_some())
    }
}
