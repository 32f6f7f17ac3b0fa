//! The images that the CRI validation suite runs, made on this machine from Debian's sources and packages with the same
//! observable behaviour: a test must not depend on registries that may be out of reach. Scenarios use them, too.
//!
//! [`build`] makes the programs once and keeps them in the cache folder; the images around them are made in memory.

mod programs;
mod suite;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::registry::Registry;
use crate::registry::image::Image;

pub use suite::{busybox, hostnet_nginx, httpd, nginx, nonewprivs, pause, predefined_group};

/// The registries whose images are ours here.
const MIRRORED: &[&str] = &["registry.k8s.io", "k8s.gcr.io", "gcr.io"];

/// An image and the names that it goes by, `REPOSITORY:TAG`, in each of the mirrored registries.
#[derive(Debug)]
struct Named {
    names: Vec<String>,
    image: Image,
}

/// Makes the programs that are missing. It takes Debian's mirror, so a house is too late for it.
///
/// # Errors
/// The mirror does not answer, or a compiler refuses.
pub fn build() -> Result<()> {
    programs::build().context("making the programs of the images")
}

/// Uploads the images of the suite under their own names, but for the registry's.
///
/// # Errors
/// A program is not built, or the registry refuses.
pub fn push(registry: &Registry) -> Result<()> {
    for Named { names, image } in suite::all()? {
        for name in names {
            registry.push_index(&name, &image).with_context(|| name.clone())?;
        }
    }
    Ok(())
}

/// Writes containerd's `certs.d` into `dir`: the registries whose images [`push`] uploads are reached at `address`
/// (`IP:PORT`, plain HTTP).
///
/// # Errors
/// The file system refuses.
pub fn mirror(dir: &Path, address: &str) -> Result<PathBuf> {
    let certs = dir.join("certs.d");
    for host in MIRRORED {
        fs::create_dir_all(certs.join(host))?;
        let text = format!(
            "server = \"https://{host}\"\n\n[host.\"http://{address}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
        );
        fs::write(certs.join(host).join("hosts.toml"), text)?;
    }
    Ok(certs)
}
