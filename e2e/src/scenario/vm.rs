//! Scenarios whose node is a virtual machine and whose control plane is outside of it.

pub mod first_pod;
mod guest;
pub mod suites;
pub mod systemd;
pub mod systemd_cgroups;
