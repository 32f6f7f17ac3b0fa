//! `berth cri`: the runtime behind a socket.

use std::sync::Arc;

use anyhow::{Context, Result};
use berth_cri::{Config, Service};
use tokio_util::sync::CancellationToken;

use crate::cli::Cri;
use crate::{runtime, systemd};

pub(crate) async fn run(options: Cri) -> Result<()> {
    let path = runtime::socket_path(&options.listen)?.to_owned();
    let config = Config { stream_address: options.stream_address, ..runtime::config(&options.runtime)? };
    let service = Service::open(config).await?;
    let stop = CancellationToken::new();
    let ended = {
        let stop = stop.clone();
        tokio::spawn(async move {
            let ended = runtime::asked_to_end().await;
            stop.cancel();
            ended
        })
    };
    berth_cri::serve(&path, Arc::clone(&service), stop.clone(), systemd::ready)
        .await
        .with_context(|| format!("serving on {}", path.display()))?;
    service.close().await;
    ended.abort();
    Ok(())
}
