//! Certificates that the cluster issues to this node: the client certificate by which the agent is `system:node:NAME`,
//! and, where the configuration asks for it, the one that the agent's own API shows.
//!
//! [`Store`] keeps pairs of certificate and key where the kubelet keeps them. [`request`] makes a key, asks the API server
//! to have it signed and waits for the answer. [`bootstrap`] does so with a bootstrap token and leaves a kubeconfig that
//! points to the store, which is how a node joins; `berth join` and `berth agent --bootstrap-kubeconfig` share it.
//! [`Credentials`] is the agent's: a client that stays the same while the certificate below it is renewed.
//! [`ServingCertificate`] keeps the other one.
//!
//! Source: `kubernetes@v1.37.2:pkg/kubelet/certificate`, `k8s.io/client-go@v0.37.2:util/certificate`.

mod alarm;
mod bootstrap;
mod credentials;
mod error;
mod life;
mod pair;
mod request;
mod serving;
mod store;

pub use bootstrap::bootstrap;
pub use credentials::{CredentialOptions, Credentials, Report};
pub use error::CertificateError;
pub use pair::Pair;
pub use request::{Kind, Wanted, request};
pub use serving::ServingCertificate;
pub use store::Store;

#[cfg(test)]
pub(crate) use pair::tests::pair as pair_for_tests;
