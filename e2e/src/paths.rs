//! Where the checkout, the caches and the built programs are.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::house;

/// The root of the checkout that this program was built from.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// The folder outside the checkout that holds what is slow to make again (`$BERTH_CACHE`, else `~/.cache/berth`).
pub fn cache() -> PathBuf {
    if let Some(cache) = env::var_os("BERTH_CACHE") {
        return PathBuf::from(cache);
    }
    let home = env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    home.join(".cache/berth")
}

/// The control plane's programs.
pub fn control_plane_bin() -> PathBuf {
    cache().join("controlplane/bin")
}

/// Cargo's target folder: `$CARGO_TARGET_DIR` when set; in the cache when that is there already or under CI; else the
/// checkout's own.
pub fn target() -> PathBuf {
    if let Some(target) = env::var_os("CARGO_TARGET_DIR") {
        return PathBuf::from(target);
    }
    let cached = cache().join("target");
    if cached.is_dir() || env::var_os("CI").is_some() { cached } else { checkout().join("target") }
}

/// The cargo profile whose programs the scenarios run: `$BERTH_PROFILE` (`debug` or `release`), else `debug`.
pub fn profile() -> String {
    env::var("BERTH_PROFILE").unwrap_or_else(|_| "debug".to_owned())
}

/// The cargo profile whose programs are measured: `$BERTH_PROFILE`, else `release`.
pub fn measured_profile() -> String {
    env::var("BERTH_PROFILE").unwrap_or_else(|_| "release".to_owned())
}

/// A program of ours to measure, as cargo built it.
pub(crate) fn measured(name: &str) -> PathBuf {
    target().join(measured_profile()).join(name)
}

/// A program of ours, as cargo built it.
pub fn berth(name: &str) -> PathBuf {
    target().join(profile()).join(name)
}

/// Where a scenario of this name keeps its files.
pub(crate) fn scratch_path(name: &str) -> PathBuf {
    house::dir().join(name)
}

/// The same, made empty.
pub(crate) fn scratch(name: &str) -> Result<PathBuf> {
    let dir = scratch_path(name);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    Ok(dir)
}
