//! A registry on this machine: Debian's docker-registry with small images of our own making.

pub mod addons;
pub mod image;
mod push;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::daemon::Daemon;
use crate::{http, wait};
use image::Image;

/// A shell and its tools.
pub const BUSYBOX: &str = "berth/busybox:1";
/// A web server on port 80 that answers every path with its pod's name.
pub const WEB: &str = "berth/web:1";

/// A running registry. Dropping it stops it.
#[derive(Debug)]
pub struct Registry {
    daemon: Daemon,
    address: String,
    dir: PathBuf,
}

impl Registry {
    /// Starts a registry on `address` (`IP:PORT`) that keeps its data in `dir`.
    ///
    /// # Errors
    /// It is not installed or does not answer.
    pub fn start(dir: &Path, address: &str) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let config = dir.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}, \
             delete: {{enabled: true}}}}\nhttp: {{addr: \"{address}\"}}\n",
            dir.join("data").display()
        );
        fs::write(&config, text)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).env("OTEL_TRACES_EXPORTER", "none");
        let mut daemon = Daemon::start("docker-registry", &mut command, &dir.join("registry.log"))?;
        wait::until_true("the registry answers", Duration::from_secs(20), || {
            Ok(http::request(address, "GET", "/v2/", &[], b"")?.status == 200)
        })
        .map_err(|error| daemon.check().err().unwrap_or(error))?;
        Ok(Self { daemon, address: address.to_owned(), dir: dir.to_owned() })
    }

    /// `IP:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The full name of an image in this registry.
    pub fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.address)
    }

    /// Uploads an image under `name` (`repository:tag`) and returns its manifest's digest.
    ///
    /// # Errors
    /// The registry refuses it.
    pub fn push(&self, name: &str, image: &Image) -> Result<String> {
        push::push(&self.address, name, image)
    }

    /// The same behind an index, as images for many architectures are; returns the index's digest.
    ///
    /// # Errors
    /// The registry refuses it.
    pub fn push_index(&self, name: &str, image: &Image) -> Result<String> {
        push::push_index(&self.address, name, image)
    }

    /// Uploads [`BUSYBOX`] and [`WEB`].
    ///
    /// # Errors
    /// busybox is not installed, or the registry refuses.
    pub fn push_standard(&self) -> Result<()> {
        self.push(BUSYBOX, &image::busybox()?)?;
        self.push(WEB, &image::web()?)?;
        Ok(())
    }

    /// Uploads what kubeadm's addons and the kind-like network run.
    ///
    /// # Errors
    /// A program is not built, or the registry refuses.
    pub fn push_addons(&self) -> Result<()> {
        self.push(&addons::kube_proxy_name(), &addons::kube_proxy()?)?;
        self.push(addons::COREDNS, &addons::coredns()?)?;
        self.push(addons::KINDNET, &addons::kindnet()?)?;
        Ok(())
    }

    /// Lets the registry run on after this process; [`down`] ends it.
    ///
    /// # Errors
    /// The process id can't be recorded.
    pub fn detach(self) -> Result<()> {
        fs::write(self.dir.join("registry.pid"), self.daemon.detach().to_string())?;
        Ok(())
    }

    /// Stops it and keeps its data.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(self) -> Result<()> {
        self.daemon.stop().map(drop)
    }
}

/// This machine's architecture by the name that images use.
pub fn architecture() -> &'static str {
    push::architecture()
}

/// Ends a registry that [`Registry::detach`] left running in `dir` and removes the folder.
///
/// # Errors
/// It does not end.
pub fn down(dir: &Path) -> Result<()> {
    if let Ok(text) = fs::read_to_string(dir.join("registry.pid")) {
        let pid: i32 = text.trim().parse()?;
        let ours = || fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("docker-registry"));
        if ours() {
            kill(Pid::from_raw(pid), Signal::SIGTERM)?;
            wait::until_true("the registry ends", Duration::from_secs(10), || Ok(!ours()))?;
        }
    }
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    Ok(())
}
