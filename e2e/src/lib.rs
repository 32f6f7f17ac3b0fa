//! End-to-end scenarios against real programs: a real control plane, a real registry, a real kernel.
//!
//! Everything here is a library that `cargo xtask` calls, so that what CI runs is what a person runs. Programs are
//! started as child processes with their output in files, and every started thing has an owner whose `Drop` ends it.

pub mod apt;
pub mod bench;
mod cni;
pub mod command;
pub mod controlplane;
mod cri;
pub mod critest;
pub mod daemon;
pub mod house;
mod http;
pub mod images;
mod ip;
pub mod kube;
pub mod leak;
pub mod node;
pub mod paths;
pub mod registry;
pub mod room;
mod runtime;
pub mod scenario;
pub mod standalone;
pub mod streamclient;
mod usage;
pub mod vm;
pub mod wait;
