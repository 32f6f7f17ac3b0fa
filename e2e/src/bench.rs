//! Benchmarks: every figure beside the reference's or the kernel's own in the same run.

mod cni;
mod figure;
mod floor;
mod oci;
mod reference;
mod rows;
mod shim;
mod table;

pub use cni::cni;
pub use floor::floor;
pub use oci::{build_oci, oci};
pub(crate) use reference::{Containerd, OURS};
pub use reference::{build as build_reference, build_plugins as build_reference_plugins};
pub use rows::cri;
