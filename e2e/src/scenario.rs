//! The scenarios: each a story with an end that can be checked.

pub mod bad_input;
pub mod cni;
pub mod containerd;
pub mod crash;
pub mod cri_images;
pub mod cri_proxy;
pub mod first_pod;
pub mod join;
pub mod podman;
pub mod probes;
pub mod soak;
mod stage;
pub mod stock_kubelet;
pub mod stream;
pub mod vm;
mod web;
pub mod yaml;

pub use stage::Stage;
