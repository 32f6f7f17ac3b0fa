//! The Debian packages that the tests need beyond the Rust and Go toolchains.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

/// What shows another time to the program that it is loaded into.
pub const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// Package and the program (or file, by an absolute path) that shows that it is there.
const NEEDED: &[(&str, &str)] = &[
    ("busybox-static", "/bin/busybox"),
    ("ca-certificates", "/etc/ssl/certs"),
    ("criu", "/usr/sbin/criu"),
    ("docker-registry", "docker-registry"),
    ("dpkg-dev", "dpkg-source"),
    ("e2fsprogs", "mke2fs"),
    ("gcc", "cc"),
    ("iproute2", "ip"),
    ("iptables", "iptables-save"),
    ("libfaketime", FAKETIME),
    ("libseccomp-dev", "/usr/include/seccomp.h"),
    ("make", "make"),
    ("nftables", "nft"),
    ("openssl", "openssl"),
    ("podman", "podman"),
    ("qemu-system-x86", "qemu-system-x86_64"),
    ("crun", "/usr/bin/crun"),
    ("runc", "/usr/sbin/runc"),
    ("strace", "strace"),
    ("util-linux", "nsenter"),
];

/// Installs the packages that are missing, and nothing when none is.
///
/// # Errors
/// The package manager failed.
pub fn ensure() -> Result<Vec<&'static str>> {
    let missing: Vec<&str> = NEEDED.iter().filter(|(_, proof)| !present(proof)).map(|(package, _)| *package).collect();
    if missing.is_empty() {
        return Ok(missing);
    }
    command::output(Command::new("apt-get").args(["update", "-qq"]))?;
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-y", "-qq", "--no-install-recommends"]);
    command::output(install.args(&missing))?;
    Ok(missing)
}

/// The code name of the release that this machine runs: what is built for it finds its libraries here.
pub(crate) fn release() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release")?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.map(str::to_owned).context("/etc/os-release has no VERSION_CODENAME")
}

/// One package list beside the machine's own, whose lists and packages stay as they are.
#[derive(Debug)]
pub(crate) struct Lists {
    folder: PathBuf,
}

impl Lists {
    /// Fetches the list of `kind` (`deb`, `deb-src`) and `suite` from the machine's mirror into `folder`.
    ///
    /// # Errors
    /// The mirror is not known or does not answer.
    pub(crate) fn fetch(folder: &Path, kind: &str, suite: &str) -> Result<Self> {
        for sub in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(sub))?;
        }
        let sources = "/etc/apt/sources.list.d/debian.sources";
        let text = fs::read_to_string(sources).with_context(|| format!("Debian's package sources in {sources}"))?;
        let mirror = text.lines().find_map(|line| line.strip_prefix("URIs: ")).context("no URIs in debian.sources")?;
        let signed = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
        fs::write(folder.join("sources.list"), format!("{kind} {signed} {mirror} {suite} main\n"))?;
        let lists = Self { folder: folder.to_owned() };
        lists.get(&["update"])?;
        Ok(lists)
    }

    /// `apt-get` with this list alone; what it downloads comes into the folder.
    ///
    /// # Errors
    /// It failed.
    pub(crate) fn get(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new("apt-get");
        command.current_dir(&self.folder).args(["-qq", "-o", "APT::Sandbox::User=root"]);
        for option in [
            format!("Dir::Etc::sourcelist={}/sources.list", self.folder.display()),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={}/lists", self.folder.display()),
            format!("Dir::Cache={}/cache", self.folder.display()),
        ] {
            command.args(["-o", &option]);
        }
        command::output(command.args(arguments)).map(drop)
    }

    /// The downloaded files whose names end like this.
    ///
    /// # Errors
    /// The folder can't be listed.
    pub(crate) fn files(&self, extension: &str) -> Result<Vec<PathBuf>> {
        files(&self.folder, extension)
    }
}

/// The files of a folder whose names end in `.extension`.
pub(crate) fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|own| own == extension) {
            found.push(path);
        }
    }
    Ok(found)
}

fn present(proof: &str) -> bool {
    if proof.starts_with('/') { Path::new(proof).exists() } else { command::found(proof) }
}
