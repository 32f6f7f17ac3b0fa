//! Exec, attach and port-forward as streams, for the CRI server and for the kubelet API.
//!
//! A client asks for a session by HTTP/1.1 and upgrades it to SPDY/3.1 or to a WebSocket; this crate speaks those and
//! hands plain byte streams to a [`Backend`], which knows the containers. What a stock kubelet, crictl, kubectl and
//! client-go expect is matched against `k8s.io/cri-streaming@v0.37.2` and `k8s.io/streaming@v0.37.2`.
//!
//! - [`Server`] is what a CRI runtime needs: single-use tokens in URLs of its own listener.
//! - [`exec`], [`attach`] and [`port_forward`] answer a request that some other server has authorised.
//!
//! Inside: `negotiate` finds the protocol, `spdy` and `websocket` say what bytes mean, `link` moves them and bounds
//! what is held, `remote` and `forward` give streams their roles.

mod answer;
mod backend;
mod forward;
#[cfg(test)]
mod fuzz;
mod link;
mod negotiate;
mod remote;
mod server;
mod spdy;
mod websocket;

pub use answer::{Answer, Session, attach, exec, port_forward};
pub use backend::{
    AttachRequest, Backend, ExecRequest, Failure, GRACE, PortForwardRequest, Reader, Streams, TerminalSize, Writer,
};
pub use server::{Full, Server};
