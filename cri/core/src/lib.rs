//! Decides how a CRI configuration becomes a compiled plan; does nothing itself.
//!
//! The caller (`cri/server`) looks up facts ([`HostFacts`] once at start; [`ImageView`] and [`Paths`] for a container),
//! asks this crate for a plan, and has the shim execute it:
//!
//! | call | from | to |
//! |---|---|---|
//! | [`cdi::apply`] | `ContainerConfig` with `CDI_devices` | the same with what they stand for |
//! | [`compile::sandbox`] | `PodSandboxConfig` | [`compile::SandboxPlan`], part of the sandbox's record |
//! | [`compile::container`] | `ContainerConfig` | the OCI configuration and the plan made from it |
//! | [`compile::exec`] | a container's plan and a command | the plan of a process that joins it |
//! | [`compile::lower::container`] | an OCI configuration | the plan |
//! | [`bundle::compile`] | a bundle's OCI configuration | what `berth-oci` executes |
//! | [`device_filter::compile`] | device rules | the eBPF program for cgroup v2 |
//! | [`systemd::Place`] | names of a slice and a scope | a unit and its cgroup |
//! | [`resources::from_cri`] | `LinuxContainerResources` | limits for `cri/cgroup` |
//!
//! Before [`compile::container`] the caller looks up on the host what [`compile::host_paths`], [`compile::images`],
//! [`compile::host_devices`] and [`compile::seccomp_profile_path`] name, and puts it into [`view::HostFiles`].
//!
//! No clock, file, socket or async is used here; everything is a function of its arguments, so every rule has a table in
//! a test. (The one memory is [`seccomp::Filters`], which only saves time.) Images, annotations and container
//! configurations are hostile input: what cannot be carried out exactly is refused with a [`ConfigError`] that names the
//! CRI field, the reason and the remedy. What Berth does not have yet (SELinux labels, seccomp notification) is
//! refused the same way, never left out silently.
//!
//! Without the feature `cri` there is only what an OCI configuration needs: `berth-oci` is built without gRPC.

pub mod apparmor;
pub mod bundle;
pub mod capabilities;
#[cfg(feature = "cri")]
pub mod cdi;
pub mod compile;
pub mod device_filter;
mod error;
pub mod host;
#[cfg(feature = "cri")]
pub mod ids;
#[cfg(feature = "cri")]
pub mod mountinfo;
#[cfg(feature = "cri")]
pub mod names;
mod parameters;
#[cfg(feature = "cri")]
pub mod reference;
#[cfg(feature = "cri")]
pub mod resources;
pub mod seccomp;
pub mod signals;
#[cfg(feature = "cri")]
pub mod state;
pub mod systemd;
#[cfg(feature = "cri")]
pub mod users;
#[cfg(feature = "cri")]
pub mod view;

pub use error::ConfigError;
pub use host::HostFacts;
#[cfg(feature = "cri")]
pub use view::{ImageView, Paths, SandboxView};

#[cfg(test)]
mod fuzz;
