//! The API server as the node itself asks it, for a look at one moment.

use std::path::Path;

use k8s_openapi::List;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::de::DeserializeOwned;

use crate::https::{self, Endpoint, Trust};
use crate::kubeconfig::{Files, Kubeconfig};
use crate::{Credentials, JoinError, clock};

/// A kubeconfig, read.
#[derive(Debug)]
pub struct Session {
    endpoint: Endpoint,
    server: String,
    authority: Vec<u8>,
    credentials: Credentials,
    ends: Option<k8s_openapi::jiff::Timestamp>,
}

impl Session {
    /// Reads `kubeconfig` and the files that it names. Nobody is asked yet.
    ///
    /// # Errors
    /// [`JoinError::Request`] naming the file.
    pub fn open(kubeconfig: &Path) -> Result<Self, JoinError> {
        let wrong = |reason: String| JoinError::request(kubeconfig.display().to_string(), reason);
        let text = std::fs::read_to_string(kubeconfig).map_err(|error| wrong(error.to_string()))?;
        let folder = kubeconfig.parent().unwrap_or(Path::new(""));
        let parsed = Kubeconfig::parse(&text, Files::In(folder)).map_err(wrong)?;
        let endpoint = Endpoint::parse(&parsed.server).map_err(|reason| wrong(format!("server: {reason}")))?;
        let ends = match &parsed.credentials {
            Credentials::Certificate { certificate, .. } => crate::pin::certificates(certificate)
                .ok()
                .and_then(|chain| chain.first().and_then(clock::Validity::of))
                .map(|validity| validity.ends),
            _ => None,
        };
        let Kubeconfig { server, authority, credentials } = parsed;
        Ok(Self { endpoint, server, authority, credentials, ends })
    }

    /// `https://HOST:PORT`.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Until when the client certificate is good; `None` for a token.
    pub fn ends(&self) -> Option<k8s_openapi::jiff::Timestamp> {
        self.ends
    }

    /// The node's object; `None` when there is none of that name.
    ///
    /// # Errors
    /// Those about reaching the API server, and [`JoinError::Answer`].
    pub async fn node(&self, name: &str) -> Result<Option<Node>, JoinError> {
        self.get(&format!("node {name:?}"), &format!("/api/v1/nodes/{name}")).await
    }

    /// The pods bound to a node, by namespace and name.
    ///
    /// # Errors
    /// As for [`Session::node`].
    pub async fn pods(&self, node: &str) -> Result<Vec<Pod>, JoinError> {
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}");
        let list: Option<List<Pod>> = self.get("the node's pods", &path).await?;
        let mut pods = list.map(|list| list.items).unwrap_or_default();
        pods.sort_by_cached_key(|pod| (pod.metadata.namespace.clone(), pod.metadata.name.clone()));
        Ok(pods)
    }

    async fn get<T: DeserializeOwned>(&self, what: &str, path: &str) -> Result<Option<T>, JoinError> {
        let answer = https::get(&self.endpoint, Trust::Authority(&self.authority), &self.credentials, path).await?;
        match answer.status {
            200 => serde_json::from_slice(&answer.body)
                .map(Some)
                .map_err(|error| JoinError::Content { what: what.to_owned(), reason: error.to_string() }),
            404 => Ok(None),
            _ => Err(answer.unexpected(what, &self.endpoint)),
        }
    }
}
