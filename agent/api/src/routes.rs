//! Paths and their answers.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, RawQuery, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use berth_pods::LogError;
use http::{StatusCode, header};
use serde_json::json;

use crate::Host;
use crate::auth::{Gate, subresources, verb};
use crate::logs::{self, Options};
use crate::server::Caller;

/// The HTTPS API. Every path, known or not, is behind the gate.
pub(crate) fn router(host: Arc<dyn Host>, gate: Arc<Gate>) -> Router {
    Router::new()
        .route("/pods", get(pods))
        .route("/pods/", get(pods))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(container_logs))
        .with_state(host)
        .merge(healthz())
        .fallback(|| async { (StatusCode::NOT_FOUND, "404 page not found\n") })
        .layer(from_fn_with_state(gate, admit))
}

/// The part that needs no state.
pub(crate) fn healthz() -> Router {
    let ok = || async { "ok" };
    Router::new().route("/healthz", get(ok)).route("/healthz/{check}", get(ok))
}

async fn admit(
    State(gate): State<Arc<Gate>>,
    Extension(Caller(certificate)): Extension<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let user = match gate.user(certificate, request.headers()).await {
        Ok(Some(user)) => user,
        Ok(None) => return (StatusCode::UNAUTHORIZED, "Unauthorized").into_response(),
        Err(error) => {
            tracing::warn!(%error, "whose a token is can't be found out");
            return (StatusCode::UNAUTHORIZED, "Unauthorized").into_response();
        }
    };
    let (verb, path) = (verb(request.method()), request.uri().path());
    match gate.allows(&user, verb, path).await {
        Ok(true) => next.run(request).await,
        Ok(false) => {
            let asked = subresources(path).join(" ");
            let text = format!("Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{asked}])", user.name);
            tracing::info!(user = %user.name, verb, path, "forbidden");
            (StatusCode::FORBIDDEN, text).into_response()
        }
        Err(error) => {
            tracing::warn!(user = %user.name, verb, path, %error, "who may do what can't be found out");
            let text = format!(
                "Authorization error (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])",
                user.name,
                subresources(path).join(" ")
            );
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

async fn pods(State(host): State<Arc<dyn Host>>) -> Json<serde_json::Value> {
    Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": host.pods()}))
}

async fn container_logs(
    State(host): State<Arc<dyn Host>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    let options = match Options::parse(query.as_deref().unwrap_or_default()) {
        Ok(options) => options,
        Err(refused) => return (refused.status(), format!("{refused}\n")).into_response(),
    };
    let path = match host.log_path(&namespace, &pod, &container, options.previous) {
        Ok(path) => path,
        Err(error) => return (log_status(&error), format!("{error}\n")).into_response(),
    };
    let source = logs::Source { host, namespace, pod, container, path };
    match logs::stream(source, options).await {
        Ok(stream) => ([(header::CONTENT_TYPE, "text/plain")], Body::from_stream(stream)).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

/// As the kubelet answers: what does not exist is 404, what has no log yet is the request's fault.
fn log_status(error: &LogError) -> StatusCode {
    match error {
        LogError::NoPod(_) | LogError::NoContainer { .. } => StatusCode::NOT_FOUND,
        LogError::Waiting { .. } | LogError::NoPrevious { .. } => StatusCode::BAD_REQUEST,
    }
}
