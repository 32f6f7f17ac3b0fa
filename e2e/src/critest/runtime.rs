//! Berth as the suite meets it: `berth cri` with a network of its own plugins.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::daemon::Daemon;
use crate::{cni, paths, wait};

/// A running `berth cri`. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Berth {
    daemon: Daemon,
    socket: PathBuf,
}

impl Berth {
    pub(super) fn start(dir: &Path, certs: &Path) -> Result<Self> {
        let conf = dir.join("net.d");
        fs::create_dir_all(&conf)?;
        fs::write(conf.join("10-critest.conflist"), cni::network("critest0", "10.88.0.0/16"))?;
        let socket = PathBuf::from("/run/berth-critest.sock");
        let mut command = Command::new(paths::berth("berth"));
        command
            .args(["cri", "--state", "/run/berth", "--log-level", "debug", "--listen"])
            .arg(format!("unix://{}", socket.display()))
            .arg("--root")
            .arg(dir.join("root"))
            .arg("--cni-conf-dir")
            .arg(&conf)
            .arg("--registry-config-dir")
            .arg(certs);
        let mut daemon = Daemon::start("berth cri", &mut command, &dir.join("cri.log"))?;
        wait::until_true("berth cri listens", Duration::from_secs(20), || Ok(UnixStream::connect(&socket).is_ok()))
            .map_err(|error| daemon.check().err().unwrap_or(error))?;
        Ok(Self { daemon, socket })
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(super) fn stop(self) -> Result<()> {
        self.daemon.stop().map(drop)
    }
}
