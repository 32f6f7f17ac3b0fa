//! Volumes of a pod, from their sources to host paths.
//!
//! [`prepare`] makes every volume that a pod declares under `ROOT/pods/UID/volumes/…` (the kubelet's own layout, so that
//! tools which look there find what they expect) and says where each lies. [`maintain`] keeps the content current: it
//! rewrites a volume when an object that it shows changes, and renews bound tokens at 80 % of their life.
//! [`bind_sub_path`] gives a container a part of a volume. [`teardown`] unmounts and removes everything, from whatever state a crash left.
//!
//! Objects of the cluster come through [`Objects`], so that this crate knows no API server: agent/kube implements it,
//! and [`NoCluster`] answers where there is none. Sources that Berth does not implement are refused by name
//! ([`VolumeError::Unsupported`]), never skipped.
//!
//! Nothing is remembered between calls, in memory or in books: whether a volume is mounted, the kernel says; how old a
//! token is, the token says; what a pod shows now, its folder says.

mod atomic;
mod downward;
mod empty_dir;
mod error;
mod facts;
mod host_path;
mod layout;
mod maintain;
mod objects;
mod ownership;
mod payload;
mod prepare;
mod quantity;
mod sub_path;
mod teardown;
mod tmpfs;
mod token;

pub use error::{TeardownError, VolumeError};
pub use facts::{Facts, HostPath};
pub use maintain::maintain;
pub use objects::{Change, Kind, NoCluster, ObjectError, Objects, Token, TokenOwner};
pub use prepare::{is_in_memory, prepare};
pub use sub_path::{SubPath, SubPathError, bind as bind_sub_path};
pub use teardown::{leftovers, teardown};
