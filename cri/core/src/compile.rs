//! CRI configuration to OCI configuration to compiled plan.
//!
//! Where the CRI is silent, the result is what containerd 2.4 with runc gives. The OCI configuration is what verbose
//! status shows as `info.runtimeSpec`; the plan is what the shim executes, and it is made from the OCI configuration
//! alone ([`lower`]), so both always agree. Nothing of an image, of annotations or of labels reaches the plan except
//! through the fields named here.

mod container;
pub mod delegate;
mod devices;
mod exec;
pub mod lower;
mod mounts;
mod process;
mod sandbox;
mod security;
mod sysctls;

pub use container::{container, log_path};
pub use devices::host_devices;
pub use exec::exec;
pub use mounts::{host_paths, images};
pub use sandbox::{NamespaceScope, PortMapping, PortProtocol, SandboxPlan, UserIds, sandbox};
pub use security::{identity, seccomp_profile_path};

#[cfg(test)]
mod tests;
