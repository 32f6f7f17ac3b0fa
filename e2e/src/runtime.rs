//! The two services of a CRI socket, as they are generated.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use berth_cri_proto::v1::image_service_client::ImageServiceClient;
use berth_cri_proto::v1::runtime_service_client::RuntimeServiceClient;
use tonic::transport::{Channel, Endpoint};

/// No call of a scenario takes this long.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A connection.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) runtime: RuntimeServiceClient<Channel>,
    pub(crate) images: ImageServiceClient<Channel>,
}

impl Client {
    pub(crate) async fn connect(socket: &Path) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display()))?.timeout(TIMEOUT);
        let channel = endpoint.connect().await.with_context(|| format!("cannot reach {}", socket.display()))?;
        Ok(Self { runtime: RuntimeServiceClient::new(channel.clone()), images: ImageServiceClient::new(channel) })
    }
}
