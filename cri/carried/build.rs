//! Builds the carried programs with a cargo of its own.
//!
//! The inner cargo gets its own target folder, or it would wait for ever for the outer one's lock, and none of the outer
//! build's flags, profiles or wrappers: what it builds depends on the sources alone, whoever asks for it (`cargo build`,
//! `cargo clippy`, a release).

use std::env;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

const PROGRAMS: [(&str, &str); 2] = [("SHIM", "berth-shim"), ("HELLO", "berth-hello")];
/// What the programs are made of, relative to the workspace.
const SOURCES: [&str; 6] = ["cri/guard", "cri/hello", "cri/oci", "cri/plan", "cri/shim", "cri/sys"];
const FLAGS: [&str; 4] = ["-C", "target-feature=+crt-static", "-C", "relocation-model=static"];

fn main() -> Result<(), Box<dyn Error>> {
    let workspace = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("../..").canonicalize()?;
    println!("cargo:rerun-if-changed=build.rs");
    for file in ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml"] {
        println!("cargo:rerun-if-changed={}", workspace.join(file).display());
    }
    for source in SOURCES {
        println!("cargo:rerun-if-changed={}", workspace.join(source).join("src").display());
        println!("cargo:rerun-if-changed={}", workspace.join(source).join("Cargo.toml").display());
    }
    let target = variable("TARGET")?;
    let folder = target_folder()?;
    build(&workspace, &target, &folder)?;
    let out = PathBuf::from(variable("OUT_DIR")?);
    for (name, program) in PROGRAMS {
        let bytes = fs::read(folder.join(&target).join("shim").join(program))?;
        // A copy of our own: the inner cargo may rewrite its file while the outer compiler reads.
        let copy = out.join(program);
        fs::write(&copy, &bytes)?;
        let digest = Sha256::digest(&bytes)
            .iter()
            .try_fold(String::new(), |mut text, byte| write!(text, "{byte:02x}").map(|()| text))?;
        println!("cargo:rustc-env=BERTH_CARRIED_{name}={}", copy.display());
        println!("cargo:rustc-env=BERTH_CARRIED_{name}_DIGEST={digest}");
    }
    Ok(())
}

fn build(workspace: &Path, target: &str, folder: &Path) -> Result<(), Box<dyn Error>> {
    let mut cargo = Command::new(variable("CARGO")?);
    cargo
        .current_dir(workspace)
        .args(["build", "--quiet", "--profile", "shim", "--target", target])
        .arg("--target-dir")
        .arg(folder);
    if workspace.join("Cargo.lock").exists() {
        cargo.arg("--locked");
    }
    for (_, program) in PROGRAMS {
        cargo.args(["--package", program]);
    }
    if has_switchable_guards() {
        cargo.args(["--features", "berth-shim/switchable-guards"]);
    }
    for (name, _) in env::vars_os() {
        if name.to_str().is_none_or(is_of_the_outer_build) {
            cargo.env_remove(name);
        }
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    let status = cargo.status()?;
    if status.success() { Ok(()) } else { Err(format!("building the carried programs failed ({status})").into()) }
}

/// Everything that cargo sets for build scripts or that shapes what it compiles; where it downloads from stays.
fn is_of_the_outer_build(name: &str) -> bool {
    const KEPT: [&str; 6] = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_", "RUSTUP_"];
    const SHAPING: [&str; 9] =
        ["CARGO", "CLIPPY_", "DEBUG", "HOST", "NUM_JOBS", "OPT_LEVEL", "PROFILE", "RUST", "TARGET"];
    // MAKEFLAGS carries the outer jobserver: with it, both cargos share the processors instead of each taking all.
    SHAPING.iter().any(|prefix| name.starts_with(prefix)) && !KEPT.iter().any(|prefix| name.starts_with(prefix))
}

/// `carried` in the outer build's target folder, which is three above this script's `TARGET/PROFILE/build/NAME/out`
/// (four with `--target`). It is shared by all profiles of the outer build.
fn target_folder() -> Result<PathBuf, Box<dyn Error>> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    let folder = out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    Ok(folder.unwrap_or(&out).join(if has_switchable_guards() { "carried-switchable" } else { "carried" }))
}

fn has_switchable_guards() -> bool {
    env::var_os("CARGO_FEATURE_SWITCHABLE_GUARDS").is_some()
}

fn variable(name: &str) -> Result<String, Box<dyn Error>> {
    env::var(name).map_err(|error| format!("{name}: {error}").into())
}
