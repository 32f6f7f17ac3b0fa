//! A sandbox.

use std::sync::{Arc, Mutex, PoisonError};

use berth_cri_core::compile::{NamespaceScope, SandboxPlan};
use berth_cri_core::state::SandboxState;
use berth_cri_proto::v1 as cri;
use berth_effect::record;
use tokio::sync::Semaphore;

use crate::handlers::OciRuntime;
use crate::meter::Meter;
use crate::records::{self, Encoded, Phase, PodResources, SandboxRecord};
use crate::runtime::Runtime;
use crate::shim::Shim;

/// How many forwarded connections of one sandbox may wait for a port to accept; further ones wait for these. A client opens
/// as many as it likes, and each takes a descriptor of ours.
const CONNECTING: usize = 64;

#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) config: cri::PodSandboxConfig,
    pub(crate) handler: String,
    /// Another runtime that makes its containers.
    pub(crate) runtime: Option<OciRuntime>,
    pub(crate) created_at: i64,
    /// With the cgroup parent filled in.
    pub(crate) plan: SandboxPlan,
    pub(crate) made_cgroups: Vec<String>,
    state: Mutex<SandboxState>,
    shim: Mutex<Option<Arc<Shim>>>,
    /// As told by UpdatePodSandboxResources.
    resources: Mutex<Option<PodResources>>,
    pub(crate) meter: Meter,
    /// The forwarded connections that wait for a port to accept.
    pub(crate) connecting: Semaphore,
}

impl Sandbox {
    pub(crate) fn new(record: SandboxRecord, state: SandboxState, shim: Option<Arc<Shim>>) -> Self {
        Self {
            id: record.id,
            config: record.config.0,
            handler: record.handler,
            runtime: record.runtime,
            created_at: record.created_at,
            plan: record.plan,
            made_cgroups: record.made_cgroups,
            state: Mutex::new(state),
            shim: Mutex::new(shim),
            resources: Mutex::new(record.resources),
            meter: Meter::default(),
            connecting: Semaphore::new(CONNECTING),
        }
    }

    pub(crate) fn metadata(&self) -> cri::PodSandboxMetadata {
        self.config.metadata.clone().unwrap_or_default()
    }

    pub(crate) fn state(&self) -> SandboxState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.state(), SandboxState::Ready { .. })
    }

    /// Changes the state by one of its transitions.
    pub(crate) fn transition<T>(&self, change: impl FnOnce(&mut SandboxState) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Its shim, while there is one.
    pub(crate) fn shim(&self) -> Option<Arc<Shim>> {
        self.shim.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn drop_shim(&self) -> Option<Arc<Shim>> {
        self.shim.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether it has a network of its own.
    pub(crate) fn has_network(&self) -> bool {
        self.plan.network == NamespaceScope::Pod
    }

    pub(crate) fn resources(&self) -> Option<PodResources> {
        self.resources.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_resources(&self, resources: Option<PodResources>) {
        *self.resources.lock().unwrap_or_else(PoisonError::into_inner) = resources;
    }

    pub(crate) fn record(&self, phase: Phase) -> SandboxRecord {
        SandboxRecord {
            id: self.id.clone(),
            phase,
            config: Encoded(self.config.clone()),
            handler: self.handler.clone(),
            runtime: self.runtime.clone(),
            created_at: self.created_at,
            plan: self.plan.clone(),
            made_cgroups: self.made_cgroups.clone(),
            resources: self.resources(),
        }
    }

    pub(crate) fn status(&self) -> cri::PodSandboxStatus {
        let state = self.state();
        let (code, ips) = match &state {
            SandboxState::Ready { ips, .. } => (cri::PodSandboxState::SandboxReady, ips),
            SandboxState::NotReady { ips, .. } => (cri::PodSandboxState::SandboxNotready, ips),
        };
        let mut ips = ips.iter().cloned();
        let network = cri::PodSandboxNetworkStatus {
            ip: ips.next().unwrap_or_default(),
            additional_ips: ips.map(|ip| cri::PodIp { ip }).collect(),
        };
        let options = self
            .config
            .linux
            .as_ref()
            .and_then(|l| l.security_context.as_ref())
            .and_then(|s| s.namespace_options.clone());
        cri::PodSandboxStatus {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            state: code.into(),
            created_at: self.created_at,
            network: Some(network),
            linux: Some(cri::LinuxPodSandboxStatus { namespaces: Some(cri::Namespace { options }) }),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            runtime_handler: self.handler.clone(),
        }
    }
}

/// Writes a sandbox's record.
pub(crate) fn write(runtime: &Runtime, record: SandboxRecord) -> std::io::Result<()> {
    let path = runtime.places.sandbox_record(&record.id);
    let bytes = records::encode(&runtime.boot_id, record).map_err(std::io::Error::other)?;
    record::write_volatile(&path, &bytes)
}
