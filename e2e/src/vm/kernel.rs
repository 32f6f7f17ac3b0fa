//! Debian's cloud kernel: fetched as a package, never installed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{command, paths};

/// The package that depends on the current kernel's package.
const META: &str = "linux-image-cloud-amd64";

/// An unpacked kernel package.
#[derive(Debug)]
pub struct Kernel {
    image: PathBuf,
    modules: BTreeMap<String, PathBuf>,
}

/// A module and what must be loaded before it.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

impl Kernel {
    /// The kernel in the cache, fetched when it is not there yet.
    ///
    /// # Errors
    /// The package can't be fetched or holds no kernel.
    pub fn fetch() -> Result<Self> {
        let folder = paths::cache().join("vm");
        fs::create_dir_all(&folder)?;
        let package = current_package()?;
        let unpacked = folder.join(&package);
        if !unpacked.is_dir() {
            download(&folder, &package, &unpacked)?;
        }
        let image = one(&unpacked.join("boot"), "vmlinuz-")?;
        let mut modules = BTreeMap::new();
        collect(&unpacked.join("lib/modules"), &mut modules)?;
        Ok(Self { image, modules })
    }

    /// The bootable image.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// The modules of these names and what they need, in the order in which they are loaded. What is not a module is
    /// taken to be built in: the guest's own checks tell if it is missing.
    pub(super) fn modules(&self, names: &[&str]) -> Result<Vec<Module>> {
        let mut ordered = Vec::new();
        for name in names {
            self.add(name, &mut ordered)?;
        }
        Ok(ordered)
    }

    fn add(&self, name: &str, ordered: &mut Vec<Module>) -> Result<()> {
        let name = name.replace('-', "_");
        let Some(path) = self.modules.get(&name) else { return Ok(()) };
        if ordered.iter().any(|module| module.name == name) {
            return Ok(());
        }
        let bytes = fs::read(path)?;
        for needed in depends(&bytes) {
            self.add(&needed, ordered)?;
        }
        ordered.push(Module { name, bytes });
        Ok(())
    }
}

fn current_package() -> Result<String> {
    let ask = || command::output(Command::new("apt-cache").args(["depends", "--important", META]));
    let mut answer = ask().unwrap_or_default();
    if !answer.contains("Depends:") {
        command::output(Command::new("apt-get").args(["update", "-qq"]))?;
        answer = ask()?;
    }
    let package = answer.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    package.map(|rest| format!("linux-image-{rest}")).with_context(|| format!("{META} names no kernel"))
}

fn download(folder: &Path, package: &str, unpacked: &Path) -> Result<()> {
    command::output(Command::new("apt-get").current_dir(folder).args(["download", "-qq", package]))?;
    let archive = one(folder, &format!("{package}_"))?;
    let partial = folder.join("unpacking");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    command::output(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&partial))?;
    fs::rename(&partial, unpacked)?;
    fs::remove_file(archive)?;
    Ok(())
}

fn one(folder: &Path, prefix: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            return Ok(entry.path());
        }
    }
    bail!("no {prefix}* in {}", folder.display())
}

fn collect(folder: &Path, modules: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, modules)?;
        } else if path.extension().is_some_and(|extension| extension == "ko") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_");
            modules.insert(name, path);
        }
    }
    Ok(())
}

/// What a module's `.modinfo` section says it depends on.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = &module[start + KEY.len()..];
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&value[..end]).split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_the_module() {
        assert_eq!(depends(b"x\0alias=y\0depends=nf_nat,libcrc32c\0z"), ["nf_nat", "libcrc32c"]);
        assert!(depends(b"x\0depends=\0z").is_empty());
        assert!(depends(b"nothing").is_empty());
    }
}
