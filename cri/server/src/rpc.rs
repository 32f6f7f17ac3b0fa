//! One module per call of the CRI.

pub(crate) mod attach;
pub(crate) mod checkpoint_container;
pub(crate) mod container_stats;
pub(crate) mod container_status;
pub(crate) mod create_container;
pub(crate) mod exec;
pub(crate) mod exec_sync;
pub(crate) mod get_container_events;
pub(crate) mod image_fs_info;
pub(crate) mod image_status;
pub(crate) mod list_container_stats;
pub(crate) mod list_containers;
pub(crate) mod list_images;
pub(crate) mod list_metric_descriptors;
pub(crate) mod list_pod_sandbox;
pub(crate) mod list_pod_sandbox_metrics;
pub(crate) mod list_pod_sandbox_stats;
pub(crate) mod pod_sandbox_stats;
pub(crate) mod pod_sandbox_status;
pub(crate) mod port_forward;
pub(crate) mod pull_image;
pub(crate) mod remove_container;
pub(crate) mod remove_image;
pub(crate) mod remove_pod_sandbox;
pub(crate) mod reopen_container_log;
pub(crate) mod run_pod_sandbox;
pub(crate) mod runtime_config;
pub(crate) mod start_container;
pub(crate) mod status;
pub(crate) mod stop_container;
pub(crate) mod stop_pod_sandbox;
pub(crate) mod stream_container_stats;
pub(crate) mod stream_containers;
pub(crate) mod stream_images;
pub(crate) mod stream_pod_sandbox_metrics;
pub(crate) mod stream_pod_sandbox_stats;
pub(crate) mod stream_pod_sandboxes;
pub(crate) mod update_container_resources;
pub(crate) mod update_pod_sandbox_resources;
pub(crate) mod update_runtime_config;
pub(crate) mod version;

mod filter;
mod parts;
mod streaming;

use std::collections::HashMap;
use std::hash::BuildHasher;

use berth_cri_core::ConfigError;
use tonic::Status;

/// A configuration that can't be carried out is the caller's to change.
pub(crate) fn invalid(error: &ConfigError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// A field that the call needs.
fn required<T>(value: Option<T>, field: &str) -> Result<T, Status> {
    value.ok_or_else(|| Status::invalid_argument(format!("{field}: it is missing")))
}

/// Whether all labels of a selector are there with their values.
fn selects<S: BuildHasher>(selector: &HashMap<String, String, S>, labels: &HashMap<String, String>) -> bool {
    selector.iter().all(|(name, value)| labels.get(name) == Some(value))
}
