//! The service as its users hold it.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use berth_cgroup::Host;
use berth_cri_core::host::CgroupDriver;
use berth_cri_proto::v1::ContainerEventResponse;
use berth_image::{RegistryConfig, Store};
use berth_stream::Backend;
use tokio::sync::{OnceCell, broadcast};

use crate::execs::Execs;
use crate::handlers::Known;
use crate::lock::Lock;
use crate::meter::Walks;
use crate::network::Network;
use crate::operations::Operations;
use crate::places::Places;
use crate::runtime::{Runtime, World};
use crate::sessions::{Sessions, Underway};
use crate::tasks::Tasks;
use crate::user_namespaces::UserNamespaces;
use crate::{Config, OpenError, apparmor, facts, install, recover};

/// Events that a slow listener may be behind.
const EVENTS: usize = 1024;

/// The container runtime. One per state folder; dropping it leaves every container running.
#[derive(Debug)]
pub struct Service {
    pub(crate) runtime: Arc<Runtime>,
}

impl Service {
    /// Takes the state folder, finishes or undoes what an earlier life began, and adopts its sandboxes.
    ///
    /// # Errors
    /// [`OpenError`]: above all when another runtime holds the state folder.
    pub async fn open(config: Config) -> Result<Arc<Self>, OpenError> {
        let runtime = tokio::task::spawn_blocking(move || prepare(config)).await.map_err(OpenError::Abnormal)??;
        let runtime = Arc::new(runtime);
        recover::recover(&runtime).await?;
        Ok(Arc::new(Self { runtime }))
    }

    /// Container events from now on. A receiver that falls behind by more than 1024 loses the oldest.
    pub fn events(&self) -> broadcast::Receiver<ContainerEventResponse> {
        self.runtime.events.subscribe()
    }

    /// What the runtime was told at start.
    pub fn config(&self) -> &Config {
        &self.runtime.config
    }

    /// The image store, for images that come from elsewhere than a registry.
    pub fn images(&self) -> &Store {
        &self.runtime.images
    }

    /// Exec, attach and port-forward on this runtime's containers, for a server of streams in the same process. A session
    /// keeps the runtime, the backend itself does not: once the service is gone, new sessions fail.
    pub fn sessions(&self) -> Arc<dyn Backend> {
        Arc::new(Sessions::of(&self.runtime))
    }

    /// Ends the streamed sessions and the waits for commands, and waits for the changes in flight. Containers and the
    /// commands in them go on running.
    pub async fn close(&self) {
        self.runtime.sessions.ended().await;
        self.runtime.tasks.finish().await;
    }
}

impl Drop for Service {
    /// A session that goes on, as one of `kubectl exec` may for days, must not keep the state folder's lock.
    fn drop(&mut self) {
        self.runtime.sessions.end();
    }
}

fn prepare(config: Config) -> Result<Runtime, OpenError> {
    let places = Places { root: config.root.clone(), state: config.state.clone() };
    // Root's folders are made by the image store, which lets containers' users through to their own files.
    make(&places.state, 0o711)?;
    let lock = Lock::take(&places.state, &places.lock())?;
    for folder in [places.sandboxes(), places.namespaces(), places.running_plugins()] {
        make(&folder, 0o700)?;
    }
    let images = Store::open(&places.root, config.images.clone())?;
    let cgroups = Host::detect()?;
    if config.cgroup_driver == CgroupDriver::Systemd {
        berth_systemd::check(&cgroups)?;
    }
    let facts = facts::probe(&cgroups);
    apparmor::load_default(&facts, &places);
    let (events, _) = broadcast::channel(EVENTS);
    Ok(Runtime {
        boot_id: facts::boot_id(),
        facts,
        user_namespaces: UserNamespaces::default(),
        cgroups,
        cgroup_parents: Mutex::new(()),
        handlers: Known::new(config.handlers.clone()),
        images,
        registries: RegistryConfig::new(&config.registry_config_dir),
        network: Network::new(&config, &places),
        shim: install::shim(&places)?,
        tasks: Tasks::default(),
        operations: Operations::default(),
        execs: Execs::default(),
        streaming: OnceCell::new(),
        sessions: Underway::default(),
        walks: Walks::default(),
        events,
        world: Mutex::new(World::default()),
        _lock: lock,
        places,
        config,
    })
}

fn make(folder: &Path, mode: u32) -> Result<(), OpenError> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).map_err(OpenError::io("create", parent))?;
    }
    match DirBuilder::new().mode(mode).create(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(OpenError::io("create", folder)),
    }
}
