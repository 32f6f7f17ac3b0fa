//! The runtime alone, as a CRI client meets it: `berth cri` with a network of its own plugins.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use berth_cri_proto::v1::image_service_client::ImageServiceClient;
use berth_cri_proto::v1::runtime_service_client::RuntimeServiceClient;
use tonic::transport::{Channel, Endpoint};

use crate::daemon::Daemon;
use crate::{cni, paths, wait};

/// No call of a scenario takes this long.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A running `berth cri`. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Berth {
    daemon: Daemon,
    socket: PathBuf,
}

/// The two services of a CRI socket.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) runtime: RuntimeServiceClient<Channel>,
    pub(crate) images: ImageServiceClient<Channel>,
}

impl Berth {
    /// Starts it with its files in `dir` and the registries' addresses in `certs`.
    pub(crate) fn start(dir: &Path, certs: &Path) -> Result<Self> {
        let conf = dir.join("net.d");
        fs::create_dir_all(&conf)?;
        fs::write(conf.join("10-pods.conflist"), cni::network("pods0", "10.88.0.0/16"))?;
        let socket = PathBuf::from("/run/berth-cri.sock");
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

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) async fn connect(&self) -> Result<Client> {
        let endpoint = Endpoint::from_shared(format!("unix:{}", self.socket.display()))?.timeout(TIMEOUT);
        let channel = endpoint.connect().await.with_context(|| format!("cannot reach {}", self.socket.display()))?;
        Ok(Client { runtime: RuntimeServiceClient::new(channel.clone()), images: ImageServiceClient::new(channel) })
    }

    pub(crate) fn stop(self) -> Result<()> {
        self.daemon.stop().map(drop)
    }
}
