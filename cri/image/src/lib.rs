//! Registry client, image store, layer application and snapshots.
//!
//! A pull goes registry -> digest check -> decompression -> DiffID check -> a confined child that applies the layer, all
//! while streaming: no compressed copy is kept. The store is a folder that explains itself: one JSON record per image,
//! one per layer, one per container snapshot; a rename commits each, and the index in memory is rebuilt by scanning.
//!
//! ```text
//! ROOT/images/HEX.json            one image, HEX = digest of its configuration
//! ROOT/layers/N/{layer.json,diff} one unpacked layer; N is short, so that an overlay of many layers fits one mount call
//! ROOT/leases/HEX.json            the layers that a pull in flight is about to use
//! ROOT/containers/ID/{snapshot.json,upper,work}
//! ```
//!
//! What comes from a registry is hostile: names, sizes, documents and archives are bounded and checked here, and
//! archives are applied by a child that can reach nothing but the folder of its layer ([`unpack`]).
//!
//! The crate refuses to mount anything: it hands out folders ([`Snapshot`]), the runtime mounts them in the container's
//! own mount namespace.

pub mod auth;
mod decompress;
mod diff;
pub mod digest;
mod error;
pub mod hosts;
pub mod import;
mod pull;
pub mod reference;
mod registry;
mod snapshot;
mod store;
pub mod unpack;
mod users;

pub use auth::Auth;
pub use digest::Digest;
pub use error::{PullError, StoreError};
pub use hosts::RegistryConfig;
pub use snapshot::Snapshot;
pub use store::{Image, Options, Store, Usage};
pub use users::Users;
