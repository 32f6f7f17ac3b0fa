//! A node's pods stopped for good: `berth leave`, once the agent has ended.

use std::sync::Arc;

use anyhow::{Context, Result};
use berth_cri::Service;
use berth_pods::{Pods, Source};
use berth_volumes::NoCluster;

use super::configuration;
use crate::cli::Agent;
use crate::console::Console;

/// Stops every pod that the agent of these options has left, with its grace period, and removes what they and the runtime
/// have made on this machine; the images too, if so wanted and the runtime is Berth's own.
pub(crate) async fn clear(options: &Agent, with_images: bool) -> Result<()> {
    let configuration = configuration::load(options)?;
    let (cri, service) = super::open_runtime(options, &configuration.kubelet).await?;
    let config = super::pods_config(options, &configuration.kubelet, &configuration.name, &cri);
    let pods = Pods::start(config, cri, Arc::new(NoCluster::new()), Arc::new(Console::default()), &[Source::Files]);
    let pods = pods.await.context("starting the pod workers")?;
    pods.set_node(super::node_facts(&configuration.ips, configuration.kubelet.max_pods));
    pods.clear().await;
    Pods::close(&pods).await;
    if let Some(service) = service {
        if with_images {
            remove_images(&service).await?;
        }
        service.dismantle().await;
    }
    Ok(())
}

async fn remove_images(service: &Service) -> Result<()> {
    let images = service.images().clone();
    let work = tokio::task::spawn_blocking(move || {
        images.list().into_iter().try_for_each(|image| images.remove(&image.id).with_context(|| image.id.clone()))
    });
    work.await.context("removing images")?.context("removing images")
}
