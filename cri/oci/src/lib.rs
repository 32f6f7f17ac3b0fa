//! Executes a compiled container plan.
//!
//! Two sides. The *launching* side ([`launch`]) runs in a single-threaded process, the shim: it forks a child with the
//! descriptors that it needs and nothing else, and learns through a pipe how far the child came. The *child's* side turns
//! that fork into a container ([`container`]) or into one more process of a container (`exec`): it reads its plan from a
//! sealed memory file, carries it out step by step, top to bottom like a checklist, and executes the user's program. It
//! decides nothing: the plan was compiled by the core. A bundle of `berth-oci` goes the same way with more to it
//! ([`embryo`] launches, `bundle` is the child's side). Where the plan names another OCI runtime, the fork has that one do
//! the work (`delegate`).
//!
//! The root file system and all mounts are made in the child's own mount namespace, by descriptors: a path of the
//! container's is resolved only below a [`berth_sys::path::Root`]. Whatever fails comes back as a
//! [`berth_plan::message::Failure`] that names the step and the object; the child's end undoes everything it did.

mod apparmor;
mod bundle;
mod cgroups;
mod container;
mod copy_up;
mod delegate;
mod devices;
pub mod embryo;
mod exec;
mod failure;
pub mod hooks;
mod host;
mod idmaps;
pub mod images;
pub mod launch;
mod lookup;
mod masks;
mod mounts;
mod priorities;
mod process;
mod rootfs;
pub mod sysctl;
mod terminal;
mod userns;

pub use launch::{Handed, Starting};
