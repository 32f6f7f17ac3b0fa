//! What a pod may ask of its cluster: configuration, secrets, tokens and services.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::node::v1::RuntimeClass;
use tokio::sync::broadcast;

/// The kinds of object that a pod refers to by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
    /// A token of a service account (TokenRequest).
    ServiceAccountToken,
    /// The services of a namespace.
    Service,
    /// A RuntimeClass, which is in no namespace.
    RuntimeClass,
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The resource's singular name, as API errors and the kubelet's messages write it.
        out.write_str(match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
            Self::ServiceAccountToken => "serviceaccount token",
            Self::Service => "service",
            Self::RuntimeClass => "runtimeclass.node.k8s.io",
        })
    }
}

/// Why an object can't be had. All but [`ObjectError::Refused`] may pass with time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// It does not exist (yet).
    #[error("{kind} {name:?} not found")]
    NotFound {
        /// What was asked for.
        kind: Kind,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The API server did not answer, or not in time.
    #[error("{kind} {namespace}/{name}: the API server did not answer: {reason}")]
    Unavailable {
        /// What was asked for.
        kind: Kind,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// What went wrong, in the client's words.
        reason: String,
    },
    /// The API server answered no.
    #[error("{kind} {namespace}/{name}: {reason}")]
    Refused {
        /// What was asked for.
        kind: Kind,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The API server's words.
        reason: String,
    },
    /// Berth runs without a cluster.
    #[error("{kind} {namespace}/{name}: there is no cluster to read it from (standalone)")]
    NoCluster {
        /// What was asked for.
        kind: Kind,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl ObjectError {
    /// Whether the object is known not to exist; what `optional: true` forgives. A cluster that is away is not that.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::NoCluster { .. })
    }
}

/// Something that a pod may refer to was created, changed or deleted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Change {
    /// What changed.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// For whom a token is asked: it is bound to the pod and dies with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenOwner {
    /// Namespace of the pod and of the service account.
    pub namespace: String,
    /// The service account (`spec.serviceAccountName`).
    pub service_account: String,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's UID.
    pub pod_uid: String,
}

/// A token, and until when it is good.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The bearer token (a JWT).
    pub value: String,
    /// When it stops being valid, by the API server's clock.
    pub expires_at: SystemTime,
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Token").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// The objects that pods refer to.
///
/// An implementation fetches on the first reference and may watch afterwards; an answer is never older than the last
/// [`Change`] sent for that object.
#[async_trait]
pub trait Objects: fmt::Debug + Send + Sync + 'static {
    /// One ConfigMap.
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ObjectError>;

    /// One Secret.
    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ObjectError>;

    /// A new token bound to the pod. `audience`: empty means the API server's own. `expiration_seconds` as the pod asks;
    /// the server may choose another life, which the answer tells.
    async fn service_account_token(
        &self,
        owner: &TokenOwner,
        audience: &str,
        expiration_seconds: i64,
    ) -> Result<Token, ObjectError>;

    /// The services of `namespace`, for service environment variables.
    async fn services(&self, namespace: &str) -> Result<Vec<Arc<Service>>, ObjectError>;

    /// One RuntimeClass: which of the runtime's handlers runs a pod.
    async fn runtime_class(&self, name: &str) -> Result<Arc<RuntimeClass>, ObjectError>;

    /// Changes from now on. A receiver that lags must treat everything as changed.
    fn changes(&self) -> broadcast::Receiver<Change>;
}

/// No cluster: every object is missing, with an error that says why; there are no services and never a change.
#[derive(Debug)]
pub struct NoCluster {
    changes: broadcast::Sender<Change>,
}

impl NoCluster {
    /// The only one there is to make.
    pub fn new() -> Self {
        Self { changes: broadcast::Sender::new(1) }
    }

    fn error(kind: Kind, namespace: &str, name: &str) -> ObjectError {
        ObjectError::NoCluster { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl Default for NoCluster {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Objects for NoCluster {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ObjectError> {
        Err(Self::error(Kind::ConfigMap, namespace, name))
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ObjectError> {
        Err(Self::error(Kind::Secret, namespace, name))
    }

    async fn service_account_token(&self, owner: &TokenOwner, _: &str, _: i64) -> Result<Token, ObjectError> {
        Err(Self::error(Kind::ServiceAccountToken, &owner.namespace, &owner.service_account))
    }

    async fn services(&self, _: &str) -> Result<Vec<Arc<Service>>, ObjectError> {
        Ok(Vec::new())
    }

    /// The kubelet without a cluster passes over the class and runs the pod by the default handler: somebody who has asked
    /// for a stronger wall around it must not get a weaker one unheard.
    async fn runtime_class(&self, name: &str) -> Result<Arc<RuntimeClass>, ObjectError> {
        Err(Self::error(Kind::RuntimeClass, "", name))
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }
}
