//! What all calls share: the machine, the stores, and who is there.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_cgroup::{Cgroup, CgroupError, Host, Resources};
use berth_cri_core::host::CgroupDriver;
use berth_cri_core::systemd::Slice;
use berth_cri_core::{HostFacts, ids, names};
use berth_cri_proto::v1::ContainerEventResponse;
use berth_image::{RegistryConfig, Store};
use berth_stream::Server;
use tokio::sync::{OnceCell, broadcast};
use tonic::Status;

use crate::Config;
use crate::cgroups;
use crate::container::Container;
use crate::execs::Execs;
use crate::handlers;
use crate::lock::Lock;
use crate::meter::Walks;
use crate::network::Network;
use crate::operations::Operations;
use crate::places::Places;
use crate::sandbox::Sandbox;
use crate::sessions::Underway;
use crate::tasks::Tasks;
use crate::user_namespaces::UserNamespaces;

#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) config: Config,
    pub(crate) places: Places,
    pub(crate) boot_id: String,
    pub(crate) facts: HostFacts,
    pub(crate) user_namespaces: UserNamespaces,
    pub(crate) cgroups: Host,
    /// Held while cgroups above those of containers are made or removed, so that neither happens under the other's feet.
    pub(crate) cgroup_parents: Mutex<()>,
    pub(crate) handlers: handlers::Known,
    pub(crate) images: Store,
    pub(crate) registries: RegistryConfig,
    pub(crate) network: Network,
    /// The installed shim.
    pub(crate) shim: PathBuf,
    pub(crate) tasks: Tasks,
    pub(crate) operations: Operations,
    pub(crate) execs: Execs,
    pub(crate) streaming: OnceCell<Server>,
    pub(crate) sessions: Underway,
    pub(crate) walks: Walks,
    pub(crate) events: broadcast::Sender<ContainerEventResponse>,
    pub(crate) world: Mutex<World>,
    pub(crate) _lock: Lock,
}

/// Every sandbox and container, by id.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) sandboxes: BTreeMap<String, Arc<Sandbox>>,
    pub(crate) containers: BTreeMap<String, Arc<Container>>,
    /// Which id a name is reserved for; also while it is being created.
    pub(crate) sandbox_names: HashMap<String, String>,
    pub(crate) container_names: HashMap<String, String>,
}

impl World {
    /// With its name.
    pub(crate) fn insert_sandbox(&mut self, sandbox: Arc<Sandbox>) {
        self.sandbox_names.insert(names::sandbox(&sandbox.metadata()), sandbox.id.clone());
        self.sandboxes.insert(sandbox.id.clone(), sandbox);
    }

    /// With its name.
    pub(crate) fn insert_container(&mut self, container: Arc<Container>) {
        let pod = container.record.sandbox_config.0.metadata.clone().unwrap_or_default();
        let own = container.config().metadata.clone().unwrap_or_default();
        self.container_names.insert(names::container(&own, &pod), container.id.clone());
        self.containers.insert(container.id.clone(), container);
    }
}

impl Runtime {
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        // Only whole values are inserted and removed: a panic elsewhere leaves it sound.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sandbox that an id, or a unique beginning of one, names.
    pub(crate) fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, Status> {
        let world = self.world();
        let found = ids::resolve(id, world.sandboxes.keys().map(String::as_str));
        let found = found.map_err(|error| Status::not_found(format!("sandbox {id:?}: {error}")))?;
        world.sandboxes.get(found).cloned().ok_or_else(|| Status::not_found(format!("sandbox {id:?} does not exist")))
    }

    /// The container that an id, or a unique beginning of one, names.
    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>, Status> {
        let world = self.world();
        let found = ids::resolve(id, world.containers.keys().map(String::as_str));
        let found = found.map_err(|error| Status::not_found(format!("container {id:?}: {error}")))?;
        world
            .containers
            .get(found)
            .cloned()
            .ok_or_else(|| Status::not_found(format!("container {id:?} does not exist")))
    }

    pub(crate) fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        self.world().sandboxes.values().cloned().collect()
    }

    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        self.world().containers.values().cloned().collect()
    }

    /// The containers of one sandbox.
    pub(crate) fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        self.world().containers.values().filter(|container| container.sandbox == sandbox).cloned().collect()
    }

    /// The shim's own cgroup, apart from the containers': what kills them for memory must not reach it.
    pub(crate) fn shim_cgroup(&self, sandbox: &str) -> String {
        format!("{}/shim-{sandbox}", self.config.cgroup_parent.trim_end_matches('/'))
    }

    /// The parent of the containers' cgroups where the caller names none.
    pub(crate) fn own_cgroup_parent(&self, sandbox: &str) -> String {
        format!("{}/pod-{sandbox}", self.config.cgroup_parent.trim_end_matches('/'))
    }

    /// As [`Runtime::own_cgroup_parent`], where systemd makes it.
    pub(crate) fn own_slice(&self, sandbox: &str) -> Result<Slice, Status> {
        let name = format!("{}-{sandbox}.slice", self.slice_stem());
        Slice::parse(&name).map_err(|error| Status::internal(format!("the sandbox's slice: {error}")))
    }

    fn slice_stem(&self) -> &str {
        self.config.cgroup_parent.trim_matches('/')
    }

    /// Makes and limits a cgroup. Parents that are empty for a moment are not removed meanwhile.
    pub(crate) fn create_cgroup(&self, path: &str, limits: &Resources) -> Result<Cgroup, CgroupError> {
        let _turn = self.cgroup_parents.lock().unwrap_or_else(PoisonError::into_inner);
        self.cgroups.create(path, limits)
    }

    /// Removes the runtime's own cgroup parent once nothing is in it.
    pub(crate) fn tidy_cgroups(&self) {
        let _turn = self.cgroup_parents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(parent) = self.cgroups.open(&self.config.cgroup_parent)
            && parent.exists()
        {
            parent.remove_if_empty();
        }
        if self.config.cgroup_driver == CgroupDriver::Systemd
            && let Ok(slice) = Slice::parse(&format!("{}.slice", self.slice_stem()))
        {
            cgroups::end_slice(self, &slice.path());
        }
    }
}

/// 64 hex digits that nobody has.
pub(crate) fn new_id() -> Result<String, Status> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(|error| Status::internal(format!("no random numbers: {error}")))?;
    Ok(ids::from_random(bytes))
}
