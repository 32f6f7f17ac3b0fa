//! Bundles: what another OCI runtime is given of a container, `STATE/sandboxes/ID/bundles/CONTAINER`.
//!
//! A bundle says by itself which runtime it is for, and is written before that one hears of the container: so whatever
//! the runtime keeps can be removed by an id alone, by any life of ours.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_cri_core::compile::delegate::{self, ExecFiles};
use berth_effect::record;
use berth_plan::container as plan;
use oci_spec::runtime as oci;
use tonic::Status;

use super::{OciRuntime, program};
use crate::container::Container;
use crate::exits::end_cgroup;
use crate::places::text;
use crate::rpc::invalid;
use crate::runtime::Runtime;
use crate::sandbox::Sandbox;

/// The largest configuration and log that are read.
const LIMIT: u64 = 32 << 20;
const LOG_LIMIT: u64 = 1 << 20;

/// How long a runtime may take to remove a container.
const PATIENCE: Duration = Duration::from_secs(60);

/// The file that names the runtime.
const RUNTIME: &str = "runtime.json";

/// Has the sandbox's runtime make a compiled container.
pub(crate) fn delegate(
    runtime: &Runtime,
    other: &OciRuntime,
    sandbox: &Sandbox,
    spec: &mut oci::Spec,
    plan: &mut plan::Container,
) -> Result<(), Status> {
    let features = runtime.handlers.features_of(other);
    let view = View::new(runtime, other, &sandbox.id, &plan.id);
    let view = delegate::Runtime {
        recursive_read_only: features.recursive_read_only,
        systemd_cgroup: !sandbox.plan.slice.is_empty(),
        ..view.borrow(other)
    };
    delegate::container(&runtime.facts, &view, spec, plan).map_err(|error| invalid(&error))
}

/// Writes a container's bundle.
pub(crate) fn write(
    runtime: &Runtime,
    other: &OciRuntime,
    sandbox: &str,
    id: &str,
    spec: &oci::Spec,
) -> io::Result<()> {
    let folder = runtime.places.bundle(sandbox, id);
    berth_effect::run("bundle-create", || {
        let parts = [delegate::ROOTFS, delegate::IMAGES].map(|part| folder.join(part));
        for folder in [runtime.places.bundles(sandbox), folder.clone()].into_iter().chain(parts) {
            match fs::DirBuilder::new().mode(0o700).create(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Ok(())
    })?;
    record::write_volatile(&folder.join(RUNTIME), &serde_json::to_vec(other)?)?;
    record::write_volatile(&folder.join(delegate::CONFIG), &serde_json::to_vec(spec)?)
}

/// Removes a container's bundle, and what its runtime keeps of the container. One that is not there is fine.
pub(crate) fn remove(runtime: &Runtime, sandbox: &str, id: &str) -> Result<(), String> {
    let folder = runtime.places.bundle(sandbox, id);
    if !folder.exists() {
        return Ok(());
    }
    let named = record::read(&folder.join(RUNTIME), LIMIT).map_err(|error| format!("{}: {error}", folder.display()))?;
    if let Some(named) = named {
        match serde_json::from_slice::<OciRuntime>(&named) {
            Ok(other) => forget(runtime, &other, sandbox, id)?,
            Err(error) => tracing::error!(container = id, %error, "a bundle does not say which runtime it is for"),
        }
    }
    let removed = berth_effect::run("bundle-remove", || fs::remove_dir_all(&folder));
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!("{}: {error}", folder.display())),
        _ => Ok(()),
    }
}

/// Removes all bundles of a sandbox.
pub(crate) fn remove_all(runtime: &Runtime, sandbox: &str) -> Result<(), String> {
    let Ok(entries) = fs::read_dir(runtime.places.bundles(sandbox)) else { return Ok(()) };
    for entry in entries.flatten() {
        if let Some(id) = entry.file_name().to_str() {
            remove(runtime, sandbox, id)?;
        }
    }
    Ok(())
}

fn forget(runtime: &Runtime, other: &OciRuntime, sandbox: &str, id: &str) -> Result<(), String> {
    if runtime.sandbox(sandbox).is_ok_and(|sandbox| sandbox.shim().is_none()) {
        // What a dead shim was starting must not make anything behind our back.
        end_cgroup(runtime, &runtime.shim_cgroup(sandbox));
    }
    let view = View::new(runtime, other, sandbox, id);
    let command = view.borrow(other).deletion(id);
    let deleted = berth_effect::run("oci-runtime-delete", || program::run(&command, PATIENCE));
    if let Err(error) = deleted {
        let left = kept(Path::new(&view.root), id);
        if !left.is_empty() && Path::new(&other.path).exists() {
            return Err(error);
        }
        tracing::warn!(container = id, error, "its runtime is gone or keeps nothing of it");
        for path in left {
            let removed = berth_effect::run("oci-runtime-state-remove", || match path.is_dir() {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            });
            removed.map_err(|error| format!("{}: {error}", path.display()))?;
        }
    }
    // Refused while they hold something.
    let _ = fs::remove_dir(&view.root);
    let _ = fs::remove_dir(runtime.places.oci());
    Ok(())
}

/// Has a container's runtime call criu. The error has the runtime's words.
pub(crate) fn checkpoint(
    runtime: &Runtime,
    other: &OciRuntime,
    container: &Container,
    images: &Path,
    work: &Path,
    patience: Duration,
) -> Result<(), String> {
    let view = View::new(runtime, other, &container.sandbox, &container.id);
    let terminal = container.config().tty;
    let command = view.borrow(other).checkpoint(&container.id, &text(images), &text(work), terminal);
    berth_effect::run("oci-runtime-checkpoint", || program::run(&command, patience)).map(drop)
}

/// What a runtime keeps of a container: runc and crun a folder of its name, others files that begin with it.
fn kept(root: &Path, id: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().contains(id)).map(|entry| entry.path()).collect()
}

/// What a runtime wrote down when it failed to create or start a container.
pub(crate) fn complaint(runtime: &Runtime, container: &Container) -> Option<String> {
    let bundle = runtime.places.bundle(&container.sandbox, &container.id);
    last_error(&bundle.join(delegate::LOG))
}

fn last_error(log: &Path) -> Option<String> {
    let log = record::read(log, LOG_LIMIT).ok().flatten()?;
    delegate::complaint(&String::from_utf8_lossy(&log))
}

/// The files of an exec, which go with this.
#[derive(Debug)]
pub(crate) struct Exec {
    bundle: PathBuf,
    files: ExecFiles,
}

impl Exec {
    /// Has the sandbox's runtime start a compiled exec.
    pub(crate) fn prepare(
        runtime: &Runtime,
        other: &OciRuntime,
        container: &Container,
        plan: &mut plan::Exec,
    ) -> io::Result<Self> {
        let bundle = runtime.places.bundle(&container.sandbox, &container.id);
        let path = bundle.join(delegate::CONFIG);
        let config = record::read(&path, LIMIT)?.ok_or_else(|| missing(&path))?;
        let spec: oci::Spec = serde_json::from_slice(&config)?;
        let process = spec.process().as_ref().ok_or_else(|| missing(&path))?;
        let view = View::new(runtime, other, &container.sandbox, &container.id);
        let process = delegate::exec(&view.borrow(other), process, plan);
        let exec = Self { bundle, files: ExecFiles::new(&plan.id) };
        record::write_volatile(&exec.bundle.join(&exec.files.process), &serde_json::to_vec(&process)?)?;
        Ok(exec)
    }

    /// What the runtime wrote down when it failed.
    pub(crate) fn complaint(&self) -> Option<String> {
        last_error(&self.bundle.join(&self.files.log))
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        for name in self.files.names() {
            let _ = fs::remove_file(self.bundle.join(name));
        }
    }
}

fn missing(path: &Path) -> io::Error {
    io::Error::other(format!("{} says nothing of a process", path.display()))
}

/// The paths of a runtime and of one bundle, as text.
struct View {
    root: String,
    bundle: String,
}

impl View {
    fn new(runtime: &Runtime, other: &OciRuntime, sandbox: &str, id: &str) -> Self {
        let places = &runtime.places;
        Self { root: text(&places.oci().join(&other.handler)), bundle: text(&places.bundle(sandbox, id)) }
    }

    fn borrow<'a>(&'a self, other: &'a OciRuntime) -> delegate::Runtime<'a> {
        delegate::Runtime {
            handler: &other.handler,
            program: &other.path,
            args: &other.args,
            root: &self.root,
            bundle: &self.bundle,
            recursive_read_only: false,
            systemd_cgroup: false,
        }
    }
}
