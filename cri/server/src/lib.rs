//! The CRI service: sandboxes, containers and images, one file per RPC under `rpc/`.
//!
//! [`Service`] implements the generated server traits, so that the agent in the same process and a client on the socket
//! ([`serve`]) go through the same door. What an RPC changes is done by a task of its own: a client that hangs up
//! cancels nothing half-way.

mod apparmor;
mod cdi;
mod cgroups;
mod checkpoint;
mod commands;
mod config;
mod container;
mod descriptor;
mod descriptors;
mod dismantle;
mod door;
mod error;
mod events;
mod execs;
mod exits;
mod facts;
mod files;
mod handlers;
mod host_files;
mod images;
mod inspect;
mod install;
mod limits;
mod lock;
mod meter;
mod metrics;
mod network;
mod operations;
mod places;
mod records;
mod recover;
mod rpc;
mod rules;
mod runtime;
mod sandbox;
mod serve;
mod service;
mod sessions;
mod shim;
mod stats;
mod tasks;
mod teardown;
mod user_namespaces;
mod volume_images;
mod watched;

pub use berth_cri_core::host::CgroupDriver;
pub use config::Config;
pub use descriptors::raise_descriptor_limit;
pub use error::OpenError;
pub use handlers::{BUILT_IN, Handler, Handlers};
pub use network::own_network_dir;
pub use serve::serve;
pub use service::Service;
