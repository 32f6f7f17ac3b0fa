//! The Container Network Interface, version 1.1: both sides of it.
//!
//! The runtime side is [`Loader`] (which configuration is in force) and [`Runtime`] (ADD, DEL, CHECK, GC and STATUS over
//! the plugins of a list, with libcni's cache on disk). The plugin side is [`Request`], [`CniResult`], [`CniError`] and
//! [`protocol`], which reads a call from the environment and standard input.
//!
//! A plugin is a function ([`Plugin`]). A type that the registry in [`Plugins`] knows is called in-process; any other is
//! found in the binary folders and exec'd by the CNI protocol. Nothing here is async and nothing enters a network
//! namespace: a caller with an executor uses a thread that it can afford to have blocked.

mod cache;
mod conf;
mod error;
mod exec;
mod loader;
mod plugin;
pub mod protocol;
mod request;
mod result;
mod runtime;
mod turn;
mod version;

pub use cache::{Cache, Cached};
pub use conf::{ConfError, NetworkList, PluginConf};
pub use error::{CniError, RuntimeError, code};
pub use exec::wait_for_orphans;
pub use loader::{LoadError, Loader};
pub use plugin::{Plugin, Plugins};
pub use request::{Command, PortMapping, Request, ValidAttachment};
pub use result::{CniResult, Dns, Interface, IpConfig, ResultError, Route};
pub use runtime::{Attachment, Runtime};
pub use version::{Version, VersionError};
