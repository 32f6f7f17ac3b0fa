//! The API-server side of the agent: watches, node, lease, status, events, tokens.
//!
//! The only user of the `kube` crate. Everything here outlives the API server's absence: pods keep running, what is to be
//! told is kept (of each pod only the newest status) and told later, watches come back with back-off.
//!
//! [`connect`] gives the client. [`register`] makes the Node and hands out a [`Node`] whose [`Node::run`] keeps status and
//! lease; [`watch_pods`] feeds the pods bound to the node to `berth_pods`; [`Publisher`] tells their status and events;
//! [`ClusterObjects`] answers what their volumes and environment refer to; [`Tokens`] and [`AccessReview`] ask who uses
//! the agent's own API and whether they may. [`leave`] takes a node out. [`certificates`] gets and renews the certificates by which the node is known.

mod access;
pub mod certificates;
mod connect;
mod events;
mod kubeconfig;
mod lease;
pub mod leave;
mod live;
mod machine;
mod node;
mod objects;
mod publisher;
mod references;
mod status;
mod watch;

pub use access::{AccessReview, Tokens};
pub use connect::{ConnectError, connect};
pub use kube::Client;
pub use machine::Machine;
pub use node::{Health, Node, NodeOptions, RegisterError, register};
pub use objects::ClusterObjects;
pub use publisher::Publisher;
pub use watch::watch_pods;
