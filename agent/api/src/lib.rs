//! The kubelet's HTTPS API.
//!
//! [`Server`] listens on :10250. Whoever calls is known by a client certificate (`CN` is the user, `O` its groups) or by a
//! bearer token that an [`Authenticator`] knows, or is refused; what is known must be allowed by an [`Authorizer`], which in a cluster asks the API server (agent/kube).
//! Served are `/healthz`, `/pods` and `/containerLogs/{namespace}/{pod}/{container}`; texts of refusals are the
//! kubelet's, since people and tools search for them. [`healthz`] is the plain one on 127.0.0.1:10248.
//!
//! What the node runs comes through [`Host`], which `berth_pods::Pods` implements.

mod auth;
mod host;
mod logs;
mod routes;
mod server;
mod tls;

pub use auth::{AlwaysAllow, Ask, Authenticator, Authorizer, Denied, User, Verdict};
pub use host::Host;
pub use server::{ApiError, Server, Settings, healthz};
pub use tls::{Identity, Issued};
