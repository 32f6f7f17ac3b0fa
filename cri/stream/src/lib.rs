//! Exec, attach and port-forward as streams, for the CRI server and for the kubelet API.
//!
//! A client asks for a session by HTTP/1.1 and upgrades it to SPDY/3.1 or to a WebSocket; this crate speaks those and
//! hands plain byte streams to a [`Backend`], which knows the containers. What a stock kubelet, crictl, kubectl and
//! client-go expect is matched against `k8s.io/cri-streaming@v0.37.2` and `k8s.io/streaming@v0.37.2`.
//!
//! [`Server`] is what a CRI runtime needs: single-use tokens in URLs of its own listener.

mod backend;
mod server;

pub use backend::{
    AttachRequest, Backend, ExecRequest, Failure, GRACE, PortForwardRequest, Reader, Streams, TerminalSize, Writer,
};
pub use server::{Full, Server};
