//! A disk image with this machine's own Debian release and systemd: packages are fetched and unpacked, never installed.
//!
//! No package's scripts run, so nothing here needs a chroot, and a few files stand for what they would have done. The
//! image is kept in the cache and never written to: a guest's changes go to a file of its own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::{apt, command, paths};

/// What a node's userland needs besides Berth, and what Berth's tests run; their dependencies come along.
const PACKAGES: &[&str] = &[
    "apparmor",
    "base-files",
    "base-passwd",
    "bash",
    "busybox-static",
    "coreutils",
    "criu",
    "crun",
    "dash",
    "e2fsprogs",
    "findutils",
    "grep",
    "hostname",
    "iproute2",
    "kmod",
    "libc-bin",
    "mount",
    "nftables",
    "procps",
    "runc",
    "sed",
    "systemd",
    "tar",
    "util-linux",
];
/// Changes whenever the image is put together in another way.
const RECIPE: u32 = 4;
/// Grows as it is used: only what holds something takes room.
const SIZE: &str = "2G";
/// What a minimal Debian links into /usr.
const MERGED: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// Documentation and translations, which a guest has no reader for.
const UNREAD: &[&str] = &["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/i18n"];
/// Units that a guest without users, consoles and a bus has no use for.
const MASKED: &[&str] = &[
    "systemd-logind.service",
    "systemd-random-seed.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-user-sessions.service",
    "getty.target",
    "timers.target",
];

/// The image in the cache, made when it is not there yet.
///
/// # Errors
/// Packages can't be fetched or unpacked.
pub fn fetch() -> Result<PathBuf> {
    let folder = paths::cache().join("vm");
    let image = folder.join(format!("debian-{}-{RECIPE}.ext4", apt::release()?));
    if image.is_file() {
        return Ok(image);
    }
    let work = folder.join("debian");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    let (root, packages) = (work.join("root"), download(&work)?);
    for package in packages {
        command::output(Command::new("dpkg-deb").arg("-x").arg(package).arg(&root))?;
    }
    merge(&root)?;
    configure(&root)?;
    let partial = work.join("image");
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d"]).arg(&root).arg(&partial).arg(SIZE);
    command::output(&mut mke2fs)?;
    fs::rename(&partial, &image)?;
    fs::remove_dir_all(work)?;
    Ok(image)
}

/// Fetches the packages with all that they depend on, as if nothing were installed.
fn download(work: &Path) -> Result<Vec<PathBuf>> {
    let archives = work.join("archives");
    fs::create_dir_all(archives.join("partial"))?;
    fs::create_dir_all(work.join("root"))?;
    let nothing = work.join("status");
    fs::write(&nothing, "")?;
    let get = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.arg("-qq").arg("-o").arg(format!("Dir::State::status={}", nothing.display()));
        apt.arg("-o").arg(format!("Dir::Cache::archives={}", archives.display()));
        // The caches of packages would be overwritten with a machine's that has none installed.
        apt.args(["-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=", "-o", "APT::Sandbox::User=root"]);
        command::output(apt.args(["-o", "Debug::NoLocking=1"]).args(arguments).args(PACKAGES))
    };
    let install = ["install", "--yes", "--no-install-recommends", "--download-only"];
    if get(&install).is_err() {
        command::output(Command::new("apt-get").args(["update", "-qq"]))?;
        get(&install)?;
    }
    let packages = apt::files(&archives, "deb")?;
    ensure!(packages.len() > PACKAGES.len(), "apt-get has fetched {} packages only", packages.len());
    Ok(packages)
}

/// Some packages still have files in `/bin`, and unpacking them puts a folder in the place of a link: so afterwards.
fn merge(root: &Path) -> Result<()> {
    for name in MERGED {
        let (own, merged) = (root.join(name), root.join("usr").join(name));
        fs::create_dir_all(&merged)?;
        if own.is_dir() {
            command::output(Command::new("cp").arg("-a").arg(own.join(".")).arg(&merged))?;
            fs::remove_dir_all(&own)?;
        }
        symlink(format!("usr/{name}"), &own)?;
    }
    Ok(())
}

/// What the packages' scripts and an installer would have done.
fn configure(root: &Path) -> Result<()> {
    for folder in UNREAD {
        let folder = root.join(folder);
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
    }
    for name in ["passwd", "group"] {
        fs::copy(root.join(format!("usr/share/base-passwd/{name}.master")), root.join("etc").join(name))?;
    }
    // An empty one would make systemd take this for a first boot, with all its questions.
    fs::write(root.join("etc/machine-id"), "62657274682d766d2d6d616368696e65\n")?;
    fs::write(root.join("etc/fstab"), "")?;
    fs::write(root.join("etc/hostname"), "berth-vm\n")?;
    let units = root.join("etc/systemd/system");
    symlink("/lib/systemd/system/multi-user.target", units.join("default.target"))?;
    for unit in MASKED {
        symlink("/dev/null", units.join(unit))?;
    }
    Ok(())
}
