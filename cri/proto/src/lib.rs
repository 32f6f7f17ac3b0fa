//! CRI v1 (k8s.io/cri-api v0.37.2): messages, client and server.
//!
//! Generated at build time from `proto/runtime/v1/api.proto`, which is vendored verbatim. This crate is a leaf that
//! changes only with the CRI, so that it is built once.

/// `runtime.v1`: the Container Runtime Interface.
#[allow(
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}
