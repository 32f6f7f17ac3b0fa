//! The standard CNI plugins: bridge, host-local, loopback, portmap and ptp.
//!
//! Each is a function of a [`Request`](berth_cni::Request), found by [`builtin`]: the runtime calls it in-process, and
//! the `berth-cni` binary serves it by the CNI protocol. A plugin runs on its caller's thread in the host's network
//! namespace; what must happen in the pod's happens on a fresh thread that enters it and ends.
//!
//! Everything that a plugin makes is found again by the attachment's identity alone (network, container, interface),
//! never by a result that may be lost or a namespace that may be gone:
//!
//! | what | where the identity is |
//! |---|---|
//! | addresses | host-local's own files |
//! | the host's end of a veth pair | its name (a hash) and its alias |
//! | masquerading | table `inet berth_masquerade`: comment of the element |
//! | host ports | tables `ip berth_hostport`, `ip6 berth_hostport`: comments of the elements |
//!
//! So DEL needs nothing but the identity and can be repeated, and GC finds what every record of was lost. A table goes
//! with its last element.

pub mod bridge;
mod host_local;

mod forwarding;
mod hostport;
mod identity;
mod loopback;
mod masquerade;
mod options;
mod pod;
mod portmap;
mod ptp;
mod tables;
mod trial;
mod veth;
mod withdraw;

pub use trial::{Trial, try_kernel};
pub use withdraw::withdraw;

use berth_cni::Plugin;

/// The types that [`builtin`] knows: also the names under which the binary is installed.
pub const TYPES: [&str; 5] = ["bridge", "host-local", "loopback", "portmap", "ptp"];

/// The plugin of that type.
pub fn builtin(kind: &str) -> Option<Plugin> {
    match kind {
        "bridge" => Some(bridge::call),
        "host-local" => Some(host_local::call),
        "loopback" => Some(loopback::call),
        "portmap" => Some(portmap::call),
        "ptp" => Some(ptp::call),
        _ => None,
    }
}
