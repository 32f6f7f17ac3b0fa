//! CRI configuration to OCI configuration to compiled plan.
//!
//! Where the CRI is silent, the result is what containerd 2.4 with runc gives. The OCI configuration is what verbose
//! status shows as `info.runtimeSpec`; the plan is what the shim executes, and it is made from the OCI configuration
//! alone ([`lower`]), so both always agree. Nothing of an image, of annotations or of labels reaches the plan except
//! through the fields named here.

#[cfg(feature = "cri")]
mod container;
#[cfg(feature = "cri")]
pub mod delegate;
#[cfg(feature = "cri")]
mod devices;
#[cfg(feature = "cri")]
mod exec;
pub mod lower;
#[cfg(feature = "cri")]
mod mounts;
#[cfg(feature = "cri")]
mod process;
#[cfg(feature = "cri")]
mod sandbox;
#[cfg(feature = "cri")]
mod security;
#[cfg(feature = "cri")]
mod sysctls;

#[cfg(feature = "cri")]
pub use container::{MASKED, READONLY, container, log_path};
#[cfg(feature = "cri")]
pub use devices::host_devices;
#[cfg(feature = "cri")]
pub use exec::exec;
#[cfg(feature = "cri")]
pub use mounts::{host_paths, images};
#[cfg(feature = "cri")]
pub use sandbox::{NamespaceScope, PortMapping, PortProtocol, SandboxPlan, UserIds, sandbox};
#[cfg(feature = "cri")]
pub use security::{identity, seccomp_profile_path};

#[cfg(all(test, feature = "cri"))]
mod tests;
