//! The programs in the images, each made once and kept under a name with the digest of its recipe.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::{apt, command, paths};

const BUSYBOX_CONFIG: &str = include_str!("../../images/busybox.config");
const PAUSE: &str = include_str!("../../images/pause.c");
const NONEWPRIVS: &str = include_str!("../../images/nonewprivs.c");

/// The file that a recipe leaves in its folder.
const MADE: &str = "made";

pub(super) fn build() -> Result<()> {
    for program in [busybox, nginx, pause, nonewprivs] {
        program()?;
    }
    Ok(())
}

/// A static busybox of our own configuration. Debian's has the standalone shell on, where `ls` is no program, and its
/// `wget -T` crashes.
pub(super) fn busybox() -> Result<PathBuf> {
    kept("busybox", BUSYBOX_CONFIG, |work| {
        let lists = apt::Lists::fetch(&work.join("apt"), "deb-src", &apt::release()?)?;
        lists.get(&["source", "busybox"])?;
        let source = source(&work.join("apt"))?;
        let log = folder().join("busybox.log");
        command::logged(Command::new("make").current_dir(&source).args(["-s", "defconfig"]), &log)?;
        let config = source.join(".config");
        fs::write(&config, only(BUSYBOX_CONFIG, &fs::read_to_string(&config)?))?;
        // It asks about what depends on another choice; an empty line takes the default.
        let mut settle = Command::new("make");
        command::output_with_input(settle.current_dir(&source).args(["-s", "oldconfig"]), &"\n".repeat(3000))?;
        let given = fs::read_to_string(&config)?;
        let lost: Vec<&str> =
            options(BUSYBOX_CONFIG).filter(|option| !given.lines().any(|line| line == *option)).collect();
        ensure!(lost.is_empty(), "this busybox does not know, or needs more for: {}", lost.join(", "));
        let jobs = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut make = Command::new("make");
        command::logged(make.current_dir(&source).args(["-s", &format!("-j{jobs}"), "busybox"]), &log)?;
        fs::rename(source.join("busybox"), work.join(MADE)).context("busybox")
    })
}

/// Debian's nginx, unpacked and not installed: a package's scripts would start it on this machine.
pub(super) fn nginx() -> Result<PathBuf> {
    kept("nginx", "", |work| {
        let get = |arguments: &[&str]| {
            let mut apt = Command::new("apt-get");
            apt.current_dir(work).args(["-qq", "-o", "APT::Sandbox::User=root"]).args(arguments);
            command::output(&mut apt)
        };
        if get(&["download", "nginx"]).is_err() {
            get(&["update"])?;
            get(&["download", "nginx"])?;
        }
        for package in apt::files(work, "deb")? {
            command::output(Command::new("dpkg-deb").arg("-x").arg(package).arg(work))?;
        }
        fs::rename(work.join("usr/sbin/nginx"), work.join(MADE)).context("nginx")
    })
}

pub(super) fn pause() -> Result<PathBuf> {
    compiled("pause", PAUSE)
}

pub(super) fn nonewprivs() -> Result<PathBuf> {
    compiled("nonewprivs", NONEWPRIVS)
}

/// A static program from one C file.
fn compiled(name: &str, source: &str) -> Result<PathBuf> {
    kept(name, source, |work| {
        let file = work.join(format!("{name}.c"));
        fs::write(&file, source)?;
        let mut cc = Command::new("cc");
        cc.args(["-static", "-Os", "-s", "-Wall", "-o"]).arg(work.join(MADE)).arg(file);
        command::output(&mut cc).map(drop)
    })
}

/// The file of that name and recipe in the cache; `make` makes it in the folder that it is given, as [`MADE`].
fn kept(name: &str, recipe: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let hash: String = Sha256::digest(recipe).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let kept = folder().join(format!("{name}-{hash}"));
    if kept.is_file() {
        return Ok(kept);
    }
    // Of this process alone: others may be making the same.
    let work = folder().join(format!("{name}.{}", std::process::id()));
    fs::create_dir_all(&work)?;
    let made = make(&work).and_then(|()| Ok(fs::rename(work.join(MADE), &kept)?));
    fs::remove_dir_all(&work)?;
    made.with_context(|| name.to_owned())?;
    Ok(kept)
}

fn folder() -> PathBuf {
    paths::cache().join("images")
}

/// The folder that `apt-get source` has unpacked.
fn source(parent: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.file_name().to_string_lossy().starts_with("busybox-") {
            return Ok(entry.path());
        }
    }
    anyhow::bail!("apt-get source has unpacked nothing")
}

/// The lines of a configuration that ask for something.
fn options(config: &str) -> impl Iterator<Item = &str> {
    config.lines().filter(|line| line.starts_with("CONFIG_"))
}

/// The default configuration with nothing switched on but what is `wanted`.
fn only(wanted: &str, default: &str) -> String {
    let off = |option: &str| format!("# {} is not set", option.trim_end_matches("=y"));
    let mut lines: Vec<String> = options(wanted).map(str::to_owned).collect();
    let mut known: HashSet<String> = lines.iter().cloned().collect();
    known.extend(options(wanted).map(off));
    for line in default.lines().filter(|line| !known.contains(*line)) {
        lines.push(if line.ends_with("=y") { off(line) } else { line.to_owned() });
    }
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wanted_is_on() {
        let default = "CONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\nCONFIG_SIZE=4\n";
        let all = only("# why\nCONFIG_B=y\nCONFIG_C=y\n", default);
        assert_eq!(all, "CONFIG_B=y\nCONFIG_C=y\n# CONFIG_A is not set\nCONFIG_SIZE=4\n");
    }

    #[test]
    fn the_shell_runs_programs_and_no_built_in_ones() {
        for off in ["FEATURE_SH_STANDALONE", "FEATURE_PREFER_APPLETS"] {
            assert!(options(BUSYBOX_CONFIG).all(|option| !option.contains(off)), "{off} is on");
        }
        assert!(options(BUSYBOX_CONFIG).any(|option| option == "CONFIG_STATIC=y"));
    }
}
