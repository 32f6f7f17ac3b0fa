//! Web servers that answer with their pods' names.

use std::fmt::Display;

use anyhow::{Result, ensure};

use crate::http;
use crate::registry::{self, Registry};

/// A Deployment. It ends in its container, to which more fields can be appended, and the next document.
pub(super) fn deployment(registry: &Registry, replicas: usize) -> String {
    let image = registry.name(registry::WEB);
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: web
        image: {image}
"
    )
}

/// Asks `pod` by its address from where the caller is.
///
/// # Errors
/// It does not answer, or not with its own name.
pub(super) fn answers(pod: &str, address: impl Display) -> Result<()> {
    let answer = http::request(&format!("{address}:80"), "GET", "/", &[], b"")?;
    let body = String::from_utf8_lossy(&answer.body);
    ensure!(answer.status == 200 && body.trim() == pod, "{pod} answers {body:?}");
    Ok(())
}
