//! A container.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use berth_cri_core::state::ContainerState;
use berth_cri_proto::v1 as cri;
use berth_plan::codec;
use berth_plan::container as plan;
use tokio::sync::watch;

use crate::meter::{Layer, Meter};
use crate::places::Places;
use crate::records::ContainerRecord;
use crate::runtime::Runtime;
use crate::volume_images;

#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) sandbox: String,
    pub(crate) record: ContainerRecord,
    /// As asked for last.
    limits: Mutex<cri::LinuxContainerResources>,
    state: watch::Sender<ContainerState>,
    pub(crate) meter: Meter,
    /// How many processes of the pod had been killed for memory when this container's scope was made.
    pod_kills: OnceLock<u64>,
}

impl Container {
    pub(crate) fn new(record: ContainerRecord, state: ContainerState) -> Arc<Self> {
        let limits = record.config.0.linux.as_ref().and_then(|linux| linux.resources.clone()).unwrap_or_default();
        Arc::new(Self {
            id: record.id.clone(),
            sandbox: record.sandbox.clone(),
            record,
            limits: Mutex::new(limits),
            state: watch::Sender::new(state),
            meter: Meter::default(),
            pod_kills: OnceLock::new(),
        })
    }

    pub(crate) fn config(&self) -> &cri::ContainerConfig {
        &self.record.config.0
    }

    pub(crate) fn state(&self) -> ContainerState {
        self.state.borrow().clone()
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(*self.state.borrow(), ContainerState::Running { .. })
    }

    /// Whether a client whose input has ended stays attached: where that was the container's input once and for all, its
    /// output is what the client waits for. Others are let go, as with containerd.
    pub(crate) fn keeps_clients_without_input(&self) -> bool {
        let config = self.config();
        config.stdin_once && !config.tty
    }

    /// Changes the state by one of its transitions and tells those who wait.
    pub(crate) fn transition<T>(&self, change: impl FnOnce(&mut ContainerState) -> T) -> T {
        let mut outcome = None;
        self.state.send_modify(|state| outcome = Some(change(state)));
        match outcome {
            Some(outcome) => outcome,
            None => unreachable!("send_modify calls its argument"),
        }
    }

    /// Its states from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<ContainerState> {
        self.state.subscribe()
    }

    /// Remembers how many processes of its pod have been killed for memory.
    pub(crate) fn note_pod_kills(&self, runtime: &Runtime) {
        if let Some(kills) = self.kills_of_pod(runtime) {
            let _ = self.pod_kills.set(kills);
        }
    }

    /// Whether the kernel has ended processes of it for want of memory. systemd removes a scope's cgroup as soon as it is
    /// empty, and the count with it: where its first process was `killed`, the pod's, which includes it, has grown then. (Of
    /// two containers of a pod that end by SIGKILL, one for memory, both are taken for it.)
    pub(crate) fn ran_out_of_memory(&self, runtime: &Runtime, killed: bool) -> bool {
        let own = runtime.cgroups.open(&self.record.cgroup).and_then(|cgroup| cgroup.oom_kills());
        match (own, self.pod_kills.get()) {
            (Ok(kills), _) => kills > 0,
            (Err(_), Some(before)) => killed && self.kills_of_pod(runtime).is_some_and(|now| now > *before),
            (Err(_), None) => false,
        }
    }

    fn kills_of_pod(&self, runtime: &Runtime) -> Option<u64> {
        let (pod, _) = self.record.cgroup.rsplit_once('/')?;
        runtime.cgroups.open(pod).ok()?.oom_kills().ok()
    }

    /// Waits until it runs no more.
    pub(crate) async fn ended(&self) {
        let mut state = self.changes();
        // The sender lives as long as `self`.
        let _ = state.wait_for(|state| !matches!(state, ContainerState::Running { .. })).await;
    }

    pub(crate) fn limits(&self) -> cri::LinuxContainerResources {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_limits(&self, limits: cri::LinuxContainerResources) {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// Has what it has written measured. Before many are asked for it, so that they are waited for at the same time.
    pub(crate) fn measure(&self, runtime: &Runtime) {
        let ended = matches!(*self.state.borrow(), ContainerState::Exited { .. });
        self.meter.measure(&runtime.walks, &runtime.images, &self.id, ended);
    }

    /// What it has written, as measured lately. Blocks for a moment.
    pub(crate) fn layer(&self, runtime: &Runtime) -> Option<Layer> {
        self.measure(runtime);
        self.meter.layer()
    }

    /// The compiled plan, with the frame that it travels in.
    pub(crate) fn plan(&self, places: &Places) -> std::io::Result<(plan::Container, Vec<u8>)> {
        let path = places.plan(&self.sandbox, &self.id);
        let bytes = berth_effect::record::read(&path, berth_plan::MAX_PLAN as u64)?;
        let bytes = bytes.ok_or_else(|| std::io::Error::other(format!("{} is missing", path.display())))?;
        let plan = codec::decode(&bytes).map_err(std::io::Error::other)?;
        Ok((plan, bytes))
    }

    fn code(&self) -> cri::ContainerState {
        match *self.state.borrow() {
            ContainerState::Created => cri::ContainerState::ContainerCreated,
            ContainerState::Running { .. } => cri::ContainerState::ContainerRunning,
            ContainerState::Exited { .. } => cri::ContainerState::ContainerExited,
        }
    }

    pub(crate) fn summary(&self) -> cri::Container {
        let config = self.config();
        cri::Container {
            id: self.id.clone(),
            pod_sandbox_id: self.sandbox.clone(),
            metadata: config.metadata.clone(),
            image: config.image.clone(),
            image_ref: self.record.image_id.clone(),
            state: self.code().into(),
            created_at: self.record.created_at,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            image_id: self.record.image_id.clone(),
        }
    }

    pub(crate) fn status(&self) -> cri::ContainerStatus {
        let config = self.config();
        let mut status = cri::ContainerStatus {
            id: self.id.clone(),
            metadata: config.metadata.clone(),
            state: self.code().into(),
            created_at: self.record.created_at,
            image: config.image.clone(),
            image_ref: self.record.image_id.clone(),
            image_id: self.record.image_id.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: volume_images::shown(&config.mounts, &self.record.volume_images),
            log_path: self.record.log_path.clone(),
            resources: Some(cri::ContainerResources { linux: Some(self.limits()), windows: None }),
            user: Some(cri::ContainerUser {
                linux: Some(cri::LinuxContainerUser {
                    uid: self.record.uid.into(),
                    gid: self.record.gid.into(),
                    supplemental_groups: self.record.groups.iter().map(|group| (*group).into()).collect(),
                }),
            }),
            stop_signal: config.stop_signal,
            ..cri::ContainerStatus::default()
        };
        match self.state() {
            ContainerState::Created => {}
            ContainerState::Running { started_at, .. } => status.started_at = started_at,
            ContainerState::Exited { started_at, finished_at, code, reason, message, .. } => {
                status.started_at = started_at;
                status.finished_at = finished_at;
                status.exit_code = code;
                status.reason = reason.as_str().to_owned();
                status.message = message;
            }
        }
        status
    }
}
