//! Compiled plans and the shim's protocol.
//!
//! The runtime decides everything (`cri/core`) and compiles it into the types of this crate; the shim (`cri/shim`, through
//! `cri/oci`) executes them and decides nothing. Both sides exchange fixed, bounded binary frames ([`codec`]), so that
//! the shim needs no allocator-hungry format, and this crate depends on nothing.

pub mod bundle;
pub mod codec;
pub mod container;
pub mod message;
pub mod resources;

/// The newest version of the protocol; a peer accepts one older and one newer, and asks for nothing that the older of the
/// two does not know.
///
/// 1: the beginning. 2: terminals ([`container::Process::terminal`]) and [`message::Request::Attach`]; user
/// namespaces, and PID namespaces that are shared; other runtimes ([`container::Delegate`]).
pub const PROTOCOL: u16 = 2;

/// The largest plan, in bytes: more than any `execve` argument block.
pub const MAX_PLAN: usize = 4 << 20;

/// The largest message on the socket, in bytes; plans travel beside it in a sealed memfd.
pub const MAX_MESSAGE: usize = 64 << 10;

/// How much of a plan's frame holds its head ([`container::ContainerHead`]) whatever the plan.
pub const MAX_HEAD: usize = 8 << 10;

/// The longest id of a container or an exec, in bytes.
pub const MAX_ID: usize = 128;
