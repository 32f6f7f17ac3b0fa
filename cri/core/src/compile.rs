//! CRI configuration to OCI configuration to compiled plan.
//!
//! Where the CRI is silent, the result is what containerd 2.4 with runc gives. The OCI configuration is what verbose
//! status shows as `info.runtimeSpec`; the plan is what the shim executes. Nothing of the image, the annotations or the
//! labels reaches the plan except through the fields named here.

mod sandbox;
mod sysctls;

pub use sandbox::{NamespaceScope, PortMapping, PortProtocol, SandboxPlan, sandbox};
