//! The kubelet's HTTP API: HTTPS on :10250 for the API server, plain health on 127.0.0.1:10248.
//!
//! Every request on :10250 is authenticated by its client certificate ([`User`]) and authorised
//! ([`Authorizer`]) before a handler sees it, whatever its path
//! (`kubernetes@v1.37.2:pkg/kubelet/server/server.go#InstallAuthFilter`). What is served: `/containerLogs`, `/pods` and
//! `/healthz`; other paths answer 404.

mod access;
mod health;
mod logs;
mod router;
mod serve;
mod tls;

pub use access::{AllowAll, Authorizer, User};
pub use health::serve_health;
pub use serve::{ServeError, serve};
pub use tls::{TlsError, TlsFiles, server_config};
