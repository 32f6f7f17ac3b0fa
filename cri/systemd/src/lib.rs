//! Scopes and slices of systemd's: the `systemd` cgroup driver's way to the machine.
//!
//! systemd is the one writer of the cgroups above containers, and hands each container's own (its scope, `Delegate=yes`)
//! over. So a container is asked for by D-Bus ([`Systemd::start_scope`]), with every limit that systemd has a word for
//! ([`of_limits`]); what it has none for is written to the files of the scope's cgroup afterwards, by `berth_cgroup`. Names
//! and properties are decided in `berth_cri_core::systemd`.
//!
//! The protocol is spoken here, in a few types (see ARCHITECTURE.md for why no library does it). Everything blocks and
//! nothing starts a thread: `berth-oci` forks.

mod bus;
mod error;
mod properties;
mod scope;
mod systemd;
mod wire;

pub use error::SystemdError;
pub use properties::of_limits;
pub use scope::{Scope, with_holder, without_holder};
pub use systemd::{Systemd, check, is_booted};
pub use wire::Malformed;

#[cfg(test)]
mod tests;
