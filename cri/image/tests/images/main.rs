//! The store against real registries, the kernel, and hostile content. Needs root.

mod attacks;
mod confinement;
mod crash;
mod layers;
mod pulls;
mod server;
mod snapshots;
mod support;
