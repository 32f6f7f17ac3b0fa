//! One worker per pod: carries out what the core decided.
//!
//! [`Pods`] takes pods from their sources (API server, manifest folder), keeps one worker task per pod UID, and routes
//! the runtime's events to them. A worker looks at what is desired and what was seen, asks `berth_agent_core::plan` for
//! steps, carries them out, looks again, and tells its [`Publisher`] what changed.

mod carry;
mod config;
mod cri;
mod files;
mod observe;
mod pods;
mod probing;
mod publisher;
mod shared;
mod users;
mod worker;

pub use config::{Config, NodeFacts};
pub use cri::{Calls, Cri};
pub use pods::{LogError, PodView, Pods, Source, StartError};
pub use publisher::{Event, EventKind, Publisher};
