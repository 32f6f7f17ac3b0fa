//! Joins a kubeadm-made cluster and leaves it again.
//!
//! What `kubeadm join` does for a worker, on the wire and on disk (`kubernetes@v1.37.2:cmd/kubeadm/app/cmd/join.go`), so
//! that the node is one like any other: [`Request`] is what was asked for, on the command line or in kubeadm's
//! JoinConfiguration ([`configuration`]); [`discover`] finds out whom to trust; [`Cluster`] reads what the cluster says
//! about its nodes; [`Plan`] is what will be written, decided before anything is; [`Installation`] writes it, and takes it
//! away again whatever has happened in between. [`status`] renders what `berth status` shows.
//!
//! The client certificate is asked for by `berth_kube`, and the agent started by the program: this crate knows neither.

pub mod clock;
mod cluster;
pub mod configuration;
mod discovery;
mod error;
mod https;
mod installation;
mod journal;
mod jws;
mod kubeconfig;
mod lock;
mod paths;
mod pin;
mod plan;
mod preflight;
pub mod process;
mod request;
mod session;
pub mod status;
pub mod systemd;
mod token;
mod version;
mod yaml;

pub use cluster::Cluster;
pub use discovery::{Trusted, discover};
pub use error::JoinError;
pub use installation::Installation;
pub use journal::{Journal, Phase, Unit};
pub use kubeconfig::Credentials;
pub use lock::Lock;
pub use paths::Paths;
pub use pin::Pins;
pub use plan::{File, Plan, read_flags};
pub use preflight::{Found, Standing, judge, obstacles, standing};
pub use request::{Argument, Discovery, Options, Request, Timeouts};
pub use session::Session;
pub use token::Token;
pub use version::Version;
