//! CreateContainer: decides everything about a container and writes it down. Nothing runs yet.
//!
//! A repeated call, whose first answer was lost, gets the container that is there as long as nobody has started it.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_cri_core::state::ContainerState;
use berth_cri_core::systemd::Place;
use berth_cri_core::{ImageView, Paths, SandboxView, cdi, compile, names, resources, signals};
use berth_cri_proto::v1 as cri;
use berth_effect::record;
use berth_image::{Image, Snapshot};
use berth_plan::codec;
use oci_spec::runtime::Spec;
use tonic::Status;

use super::{invalid, required};
use crate::container::Container;
use crate::handlers::bundle;
use crate::host_files;
use crate::images::store_status;
use crate::places::text;
use crate::records::{self, ContainerRecord, Encoded};
use crate::rules;
use crate::runtime::{Runtime, new_id};
use crate::sandbox::Sandbox;
use crate::tasks::blocking;
use crate::{teardown, volume_images};

pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: cri::CreateContainerRequest,
) -> Result<cri::CreateContainerResponse, Status> {
    let config = required(request.config, "config")?;
    let sandbox = runtime.sandbox(&request.pod_sandbox_id)?;
    // Its end waits for us, or has come before we look.
    let _turn = runtime.operations.begin(&sandbox.id, "create").await;
    runtime.sandbox(&sandbox.id)?;
    sandbox
        .state()
        .may_create()
        .map_err(|refusal| Status::failed_precondition(format!("{refusal}: {}", sandbox.id)))?;
    let metadata = required(config.metadata.clone(), "config.metadata")?;
    let name = names::container(&metadata, &sandbox.metadata());
    let _operation = runtime.operations.begin(&format!("container {name}"), "create").await;
    let existing = {
        let world = runtime.world();
        world.container_names.get(&name).and_then(|id| world.containers.get(id)).cloned()
    };
    if let Some(existing) = existing {
        let same = existing.sandbox == sandbox.id && *existing.config() == config;
        if same && existing.state() == ContainerState::Created {
            return Ok(cri::CreateContainerResponse { container_id: existing.id.clone() });
        }
        return Err(Status::already_exists(format!(
            "failed to reserve container name {name:?}: name {name:?} is reserved for {:?}",
            existing.id
        )));
    }
    let image_name = required(config.image.clone(), "config.image")?.image;
    let image = runtime
        .images
        .find(&image_name)
        .ok_or_else(|| Status::not_found(format!("image {image_name:?} is not on this node: pull it first")))?;
    let id = new_id()?;
    let (work, made_for, new) = (Arc::clone(runtime), Arc::clone(&sandbox), id.clone());
    let made = blocking(move || match make(&work, &made_for, &new, config, &image) {
        Ok(record) => Ok(record),
        Err(status) => {
            if let Err(error) = teardown::container_remains(&work, &made_for.id, &new) {
                tracing::error!(container = new, error, "a container that was not made can't be removed");
            }
            Err(status)
        }
    });
    let container = Container::new(made.await??, ContainerState::Created);
    runtime.world().insert_container(container);
    runtime.tell(cri::ContainerEventType::ContainerCreatedEvent, &id, &sandbox.id);
    Ok(cri::CreateContainerResponse { container_id: id })
}

fn make(
    runtime: &Runtime,
    sandbox: &Sandbox,
    id: &str,
    config: cri::ContainerConfig,
    image: &Image,
) -> Result<ContainerRecord, Status> {
    if let Some(limits) = config.linux.as_ref().and_then(|linux| linux.resources.as_ref()) {
        resources::from_cri(limits).map_err(|error| invalid(&error))?;
    }
    let users = runtime.images.users(image).map_err(|error| store_status(&error))?;
    let view = ImageView::new(&image.config, users.passwd.clone(), users.group.clone());
    let volumes = volume_images::find(runtime, &config)?;
    let held: Vec<Image> = volumes.iter().map(|(_, image)| image.clone()).collect();
    let snapshot = runtime.images.snapshot_with(id, image, &held).map_err(|error| store_status(&error))?;
    // The record keeps what was asked for, so that the same request is known again.
    let applied = cdi::apply(&config, &crate::cdi::find(&runtime.config.cdi_spec_dirs, &config));
    let applied = applied.map_err(|error| invalid(&error))?;
    let mut paths = paths(runtime, sandbox, id, &applied, &snapshot)?;
    paths.host.images = volume_images::views(&volumes, &snapshot);
    let running = running(runtime, sandbox);
    let metadata = sandbox.metadata();
    let outer = SandboxView {
        id: &sandbox.id,
        name: &metadata.name,
        namespace: &metadata.namespace,
        uid: &metadata.uid,
        holder: sandbox.shim().map_or(0, |shim| shim.pid),
        init: init(runtime, sandbox),
        running: &running,
        plan: &sandbox.plan,
    };
    let (mut spec, mut plan) =
        compile::container(&runtime.facts, &outer, &applied.config, &view, &paths).map_err(|error| invalid(&error))?;
    if let Some(other) = &sandbox.runtime {
        bundle::delegate(runtime, other, sandbox, &mut spec, &mut plan)?;
    }
    volume_images::check(&config, &paths.host.images)?;
    let security = applied.config.linux.as_ref().and_then(|linux| linux.security_context.clone()).unwrap_or_default();
    let identity = compile::identity(&security, &view).map_err(|error| invalid(&error))?;
    let scope = sandbox.plan.scope(id).map_err(|error| Status::internal(format!("the sandbox's slice: {error}")))?;
    let own = names::cgroup(&sandbox.plan.cgroup_parent, id);
    let record = ContainerRecord {
        id: id.to_owned(),
        sandbox: sandbox.id.clone(),
        sandbox_config: Encoded(sandbox.config.clone()),
        created_at: berth_sys::process::now(),
        image_id: image.id.clone(),
        volume_images: volume_images::ids(&paths.host.images),
        log_path: paths.log_path,
        cgroup: scope.as_ref().map_or(own, Place::path),
        unit: scope.map(|scope| scope.unit).unwrap_or_default(),
        stop_signal: signals::stop(&config, &view),
        uid: identity.uid,
        gid: identity.gid,
        groups: identity.groups,
        devices: rules::of(&spec),
        config: Encoded(config),
    };
    write(runtime, sandbox, &record, &spec, &plan)
        .map_err(|error| Status::internal(format!("the container's record: {error}")))?;
    Ok(record)
}

/// The sandbox's containers that another one may join.
fn running(runtime: &Runtime, sandbox: &Sandbox) -> BTreeMap<String, i32> {
    let containers = runtime.containers_of(&sandbox.id).into_iter();
    let running = containers.filter_map(|container| match container.state() {
        ContainerState::Running { pid, .. } => Some((container.id.clone(), pid)),
        ContainerState::Created | ContainerState::Exited { .. } => None,
    });
    running.collect()
}

/// Process 1 of the PID namespace that the containers share, as the shim wrote it down.
fn init(runtime: &Runtime, sandbox: &Sandbox) -> i32 {
    if sandbox.plan.pid != compile::NamespaceScope::Pod {
        return 0;
    }
    let path = runtime.places.sandbox(&sandbox.id).join("init.pid");
    record::read(&path, 64).ok().flatten().and_then(|text| String::from_utf8(text).ok()?.parse().ok()).unwrap_or(0)
}

fn paths(
    runtime: &Runtime,
    sandbox: &Sandbox,
    id: &str,
    applied: &cdi::Applied,
    snapshot: &Snapshot,
) -> Result<Paths, Status> {
    let config = &applied.config;
    let mut host = host_files::look_up(config, &applied.sources)?;
    host.nodes = applied.nodes.clone();
    let folder = runtime.places.sandbox(&sandbox.id);
    Ok(Paths {
        container: id.to_owned(),
        lower: snapshot.lower.iter().map(|path| text(path)).collect(),
        upper: text(&snapshot.upper),
        work: text(&snapshot.work),
        log_path: compile::log_path(&sandbox.plan, config).map_err(|error| invalid(&error))?,
        resolv_conf: text(&folder.join("resolv.conf")),
        hostname: text(&folder.join("hostname")),
        hosts: text(&folder.join("hosts")),
        shm: text(&folder.join("shm")),
        host,
    })
}

/// The plan where a reboot takes it, then the record, which makes the container.
fn write(
    runtime: &Runtime,
    sandbox: &Sandbox,
    record: &ContainerRecord,
    spec: &Spec,
    plan: &berth_plan::container::Container,
) -> std::io::Result<()> {
    if let Some(other) = &sandbox.runtime {
        bundle::write(runtime, other, &sandbox.id, &record.id, spec)?;
    }
    record::write_volatile(&runtime.places.container_spec(&record.id), &serde_json::to_vec(spec)?)?;
    let frame = codec::encode(plan).map_err(std::io::Error::other)?;
    record::write_volatile(&runtime.places.plan(&record.sandbox, &record.id), &frame)?;
    let bytes = records::encode(&runtime.boot_id, record).map_err(std::io::Error::other)?;
    record::write_durable(&runtime.places.container_record(&record.id), &bytes)
}
