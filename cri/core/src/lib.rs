//! Decides how a CRI configuration becomes a compiled plan; does nothing itself.
//!
//! The caller (`cri/server`) looks up facts ([`HostFacts`], [`ImageView`], [`Paths`]), asks this crate for a plan, and
//! has the shim execute it. No clock, file, socket or async is used here; everything is a function of its arguments, so
//! every rule has a table in a test. Images, annotations and container configurations are hostile input: what cannot be
//! carried out exactly is refused with a [`ConfigError`] that names the field.

pub mod capabilities;
pub mod compile;
mod error;
pub mod host;
pub mod ids;
pub mod mountinfo;
pub mod names;
pub mod reference;
pub mod resources;
pub mod seccomp;
pub mod signals;
pub mod state;
pub mod users;
pub mod view;

pub use error::ConfigError;
pub use host::HostFacts;
pub use view::{ImageView, Paths, SandboxView};
