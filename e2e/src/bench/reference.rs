//! What Berth is compared with: containerd with crun and with runc, and the CNI plugins, from their Go modules and from
//! Debian.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};
use serde_json::json;

use crate::controlplane::build::go;
use crate::daemon::Daemon;
use crate::registry::Registry;
use crate::registry::image::{self, Image};
use crate::{apt, cni, command, paths, wait};

/// The sandbox image that containerd holds each pod's namespaces with.
const PAUSE: &str = "berth/pause:1";

/// The v2 hierarchy of a hybrid layout.
pub(super) const UNIFIED: &str = "/sys/fs/cgroup/unified";
/// The OCI runtimes below containerd, by the names of their handlers; the first is its default.
pub(super) const HANDLERS: [&str; 2] = ["crun", "runc"];
/// The handler whose runtime is Berth's own.
pub(crate) const OURS: &str = "berth-oci";

/// Debian packages of crun and of what it is linked with, from the unstable distribution.
const CRUN: &[&str] = &[
    "crun",
    "libblake3-0",
    "libc6",
    "libcap2",
    "libgcc-s1",
    "libjson-c5",
    "libseccomp2",
    "libstdc++6",
    "libsystemd0",
    "libtbb12",
    "libyajl2",
];

/// The same of runc.
const RUNC: &[&str] = &["runc", "libc6", "libseccomp2"];

fn folder() -> PathBuf {
    paths::cache().join("reference")
}

/// Builds and fetches what is missing; takes minutes the first time.
///
/// # Errors
/// Go or the package manager fails.
pub fn build() -> Result<()> {
    let (folder, module) = (folder(), paths::checkout().join("e2e/reference"));
    fs::create_dir_all(folder.join("cni"))?;
    let log = folder.join("build.log");
    if !folder.join("containerd").is_file() {
        let program = "github.com/containerd/containerd/v2/cmd/containerd";
        let mut command = go(&module, &folder, "-s -w");
        command.args(["-tags", "no_btrfs", program]).arg(format!("{program}-shim-runc-v2"));
        command::logged(&mut command, &log)?;
    }
    build_plugins()?;
    fetch_runtimes()
}

/// Fetches crun and runc if one is missing.
pub(super) fn fetch_runtimes() -> Result<()> {
    let folder = folder();
    fs::create_dir_all(&folder)?;
    for (name, packages) in HANDLERS.into_iter().zip([CRUN, RUNC]) {
        if !folder.join(name).is_dir() {
            fetch(&folder, name, packages)?;
        }
    }
    Ok(())
}

/// One of [`HANDLERS`]' programs.
pub(super) fn runtime(name: &str) -> Result<PathBuf> {
    program(&folder().join(name))
}

/// Builds the reference's CNI plugins if one is missing (some seconds); answers with their folder.
///
/// # Errors
/// Go fails.
pub fn build_plugins() -> Result<PathBuf> {
    let (folder, module) = (folder(), paths::checkout().join("e2e/reference"));
    let bin = folder.join("cni");
    fs::create_dir_all(&bin)?;
    let plugins = ["main/bridge", "main/loopback", "main/ptp", "meta/portmap", "ipam/host-local"];
    let is_there = |name: &&str| name.rsplit('/').next().is_some_and(|name| bin.join(name).is_file());
    if !plugins.iter().all(is_there) {
        let plugins = plugins.map(|name| format!("github.com/containernetworking/plugins/plugins/{name}"));
        command::logged(go(&module, &bin, "-s -w").args(plugins), &folder.join("build-plugins.log"))?;
    }
    Ok(bin)
}

/// A runtime in its own folder, with its own libraries and loader: the machine's are older.
fn fetch(folder: &Path, name: &str, packages: &[&str]) -> Result<()> {
    let lists = apt::Lists::fetch(&folder.join(format!("apt-{name}")), "deb", "sid")?;
    lists.get(&[&["download"], packages].concat())?;
    let partial = folder.join(format!("{name}.partial"));
    fs::create_dir_all(&partial)?;
    for package in lists.files("deb")? {
        command::output(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&partial))?;
    }
    if !command::found("patchelf") {
        command::output(Command::new("apt-get").args(["install", "-y", "-qq", "patchelf"]))?;
    }
    let libraries = folder.join(name).join("usr/lib/x86_64-linux-gnu");
    let mut patch = Command::new("patchelf");
    patch.arg("--set-interpreter").arg(libraries.join("ld-linux-x86-64.so.2"));
    patch.arg("--set-rpath").arg(&libraries).arg(program(&partial)?);
    command::output(&mut patch)?;
    fs::rename(&partial, folder.join(name))?;
    Ok(())
}

/// The runtime in its package's files, whichever folder of programs its maker chose.
fn program(unpacked: &Path) -> Result<PathBuf> {
    let name = unpacked.file_stem().context("a folder has a name")?;
    let places = ["usr/bin", "usr/sbin"].map(|bin| unpacked.join(bin).join(name));
    places.into_iter().find(|place| place.is_file()).with_context(|| format!("no program in {}", unpacked.display()))
}

/// A running containerd. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Containerd {
    _daemon: Daemon,
    dir: PathBuf,
}

impl Containerd {
    /// With a mount namespace of its own, for measurements.
    pub(crate) fn start(dir: &Path, registry: &Registry) -> Result<Self> {
        // crun refuses a hybrid layout, so the daemon gets a mount namespace without the v2 hierarchy.
        let script = "mount --make-rshared / && { umount /sys/fs/cgroup/unified || true; } && exec \"$0\" \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(folder().join("containerd"));
        Self::launch(dir, registry, &dir.join("certs.d"), command)
    }

    /// In the caller's mount namespace, which is a house's: a suite looks at mounts on both sides.
    pub(crate) fn start_for_suite(dir: &Path, registry: &Registry, certs: &Path) -> Result<Self> {
        if Path::new(UNIFIED).exists() {
            umount2(UNIFIED, MntFlags::MNT_DETACH).context(UNIFIED)?;
        }
        Self::launch(dir, registry, certs, Command::new(folder().join("containerd")))
    }

    fn launch(dir: &Path, registry: &Registry, certs: &Path, mut command: Command) -> Result<Self> {
        let (conf, host) = (dir.join("net.d"), certs.join(registry.address()));
        fs::create_dir_all(&conf)?;
        fs::create_dir_all(&host)?;
        fs::write(host.join("hosts.toml"), format!("server = \"http://{}\"\n", registry.address()))?;
        fs::write(conf.join("10-bench.conflist"), cni::network("ctrd-bench0", "10.90.0.0/16"))?;
        let mut pause = Image { layers: image::busybox()?.layers, config: json!({}) };
        pause.config = json!({"Entrypoint": ["/bin/sleep", "2147483647"]});
        registry.push(PAUSE, &pause)?;
        let config = dir.join("config.toml");
        fs::write(&config, configuration(dir, certs, &conf, &registry.name(PAUSE))?)?;
        let path = std::env::var("PATH").unwrap_or_default();
        command.arg("--config").arg(&config).env("PATH", format!("{}:{path}", folder().display()));
        let mut daemon = Daemon::start("containerd", &mut command, &dir.join("containerd.log"))?;
        let socket = dir.join("containerd.sock");
        wait::until_true("containerd listens", Duration::from_secs(30), || {
            Ok(std::os::unix::net::UnixStream::connect(&socket).is_ok())
        })
        .map_err(|error| daemon.check().err().unwrap_or(error))?;
        Ok(Self { _daemon: daemon, dir: dir.to_owned() })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }
}

fn configuration(dir: &Path, certs: &Path, conf: &Path, pause: &str) -> Result<String> {
    let folder = folder();
    let mut handlers = String::new();
    let mut runtimes =
        HANDLERS.map(|name| Ok((name, program(&folder.join(name))?))).into_iter().collect::<Result<Vec<_>>>()?;
    runtimes.push((OURS, paths::berth(OURS)));
    for (name, program) in runtimes {
        handlers.push_str(&format!(
            r#"[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.{name}]
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.{name}.options]
  BinaryName = "{}"
"#,
            program.display()
        ));
    }
    let (dir, certs, conf, folder, default) =
        (dir.display(), certs.display(), conf.display(), folder.display(), HANDLERS[0]);
    Ok(format!(
        r#"version = 3
root = "{dir}/root"
state = "/run/ctrd-bench"
[grpc]
  address = "{dir}/containerd.sock"
[plugins.'io.containerd.cri.v1.images']
  use_local_image_pull = true
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{pause}"
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = "{certs}"
[plugins.'io.containerd.cri.v1.runtime']
  disable_apparmor = true
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["{folder}/cni"]
  conf_dir = "{conf}"
[plugins.'io.containerd.cri.v1.runtime'.containerd]
  default_runtime_name = "{default}"
{handlers}"#
    ))
}
