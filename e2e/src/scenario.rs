//! The scenarios: each a story with an end that can be checked.

pub mod bad_input;
pub mod cni;
pub mod crash;
pub mod first_pod;
pub mod join;
pub mod probes;
mod stage;
pub mod stock_kubelet;
pub mod vm;
mod web;
pub mod yaml;

pub use stage::Stage;
