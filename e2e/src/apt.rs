//! The Debian packages that the tests need beyond the Rust and Go toolchains.

use std::process::Command;

use anyhow::Result;

use crate::command;

/// What shows another time to the program that it is loaded into.
pub const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// Package and the program (or file, by an absolute path) that shows that it is there.
const NEEDED: &[(&str, &str)] = &[
    ("busybox-static", "/bin/busybox"),
    ("ca-certificates", "/etc/ssl/certs"),
    ("docker-registry", "docker-registry"),
    ("e2fsprogs", "mke2fs"),
    ("gcc", "cc"),
    ("iproute2", "ip"),
    ("iptables", "iptables-save"),
    ("libfaketime", FAKETIME),
    ("nftables", "nft"),
    ("openssl", "openssl"),
    ("qemu-system-x86", "qemu-system-x86_64"),
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

fn present(proof: &str) -> bool {
    if proof.starts_with('/') { std::path::Path::new(proof).exists() } else { command::found(proof) }
}
