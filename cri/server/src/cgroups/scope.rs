//! The systemd cgroup driver: scopes of containers in the slices of pods.
//!
//! A connection for each act: systemd may be executed anew at any time, and an act takes some calls. Slices are the
//! kubelet's; those of pods that name none are made, and ended, by the runtime.

use std::process::{Child, Command, Stdio};
use std::sync::PoisonError;

use berth_cgroup::{Cgroup, CgroupError, Resources};
use berth_cri_core::systemd::{Place, Slice};
use berth_systemd::{Scope, Systemd, SystemdError, is_booted, with_holder, without_holder};

use crate::container::Container;
use crate::runtime::Runtime;

/// A scope that is there because of a process of ours: systemd makes none around nobody, and takes an empty one away. The
/// process ends with this, or with the runtime.
#[derive(Debug)]
pub(crate) struct Held {
    holder: Child,
    unit: String,
    cgroup: Cgroup,
    /// The container's, with room for the holder.
    pub(crate) limits: Resources,
    /// The container's.
    asked: Resources,
}

impl Held {
    /// Has systemd make a container's scope; `None` where the runtime makes its cgroup.
    pub(crate) fn start(
        runtime: &Runtime,
        container: &Container,
        limits: &Resources,
    ) -> Result<Option<Self>, CgroupError> {
        let record = &container.record;
        if record.unit.is_empty() {
            return Ok(None);
        }
        let parent = record.cgroup.rsplit_once('/').map_or("", |(parent, _)| parent);
        let slice = Slice::at(parent).map_err(|error| told(&error))?;
        let place = Place { slice, unit: record.unit.clone() };
        let cgroup = runtime.cgroups.open(&record.cgroup)?;
        // Counted before anything of the container's can be killed.
        container.note_pod_kills(runtime);
        let holder = hold(runtime).map_err(|error| told(&format!("start a process for the scope: {error}")))?;
        let held = Self {
            holder,
            unit: place.unit.clone(),
            cgroup: cgroup.clone(),
            limits: with_holder(limits),
            asked: limits.clone(),
        };
        let scope = Scope {
            place: &place,
            description: &format!("Berth container {}", container.id),
            holder: held.holder.id().try_into().unwrap_or(0),
            resources: limits,
            settings: &[],
            extra: &[],
        };
        // A slice that is empty for a moment is not stopped meanwhile.
        let _turn = runtime.cgroup_parents.lock().unwrap_or_else(PoisonError::into_inner);
        Systemd::connect().and_then(|mut systemd| systemd.start_scope(&scope, &cgroup)).map_err(from)?;
        Ok(Some(held))
    }

    /// The container's own process holds the scope from now on, or nobody does.
    pub(crate) fn release(self) {
        let (unit, cgroup, asked) = (self.unit.clone(), self.cgroup.clone(), without_holder(&self.asked));
        drop(self);
        if asked == Resources::default() {
            return;
        }
        let limited = Systemd::connect().and_then(|mut systemd| systemd.limit(&unit, &cgroup, &asked, &[]));
        if let Err(error) = limited {
            tracing::warn!(unit, %error, "a container may have one process more than its limit");
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// A process that waits for the end of its standard input. The shim is the smallest program there is.
fn hold(runtime: &Runtime) -> std::io::Result<Child> {
    let mut command = Command::new(&runtime.shim);
    command.arg("--hold").env_clear().current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// Changes the limits of a container's unit, where it has one; those of its cgroup are the caller's to write.
pub(crate) fn limit(unit: &str, cgroup: &Cgroup, limits: &Resources) -> Result<(), CgroupError> {
    if unit.is_empty() {
        return Ok(());
    }
    Systemd::connect().and_then(|mut systemd| systemd.limit(unit, cgroup, limits, &[])).map_err(from)
}

/// Makes a pod's slice, or changes its limits, where systemd makes the pod's cgroup.
pub(crate) fn limit_slice(slice: &str, limits: &Resources) -> Result<(), CgroupError> {
    if slice.is_empty() {
        return Ok(());
    }
    let slice = Slice::parse(slice).map_err(|error| told(&error))?;
    Systemd::connect().and_then(|mut systemd| systemd.start_slice(&slice, limits)).map_err(from)
}

/// Has systemd forget a unit, where there is one.
pub(super) fn stop(unit: &str) -> Result<(), CgroupError> {
    if unit.is_empty() {
        return Ok(());
    }
    Systemd::connect().and_then(|mut systemd| systemd.stop(unit)).map_err(from)
}

/// Stops the slice at a path, where nothing is in it: stopped, it would take all that is in it along. The caller keeps
/// others from putting something into it. What is no slice is left alone.
pub(crate) fn end_slice(runtime: &Runtime, path: &str) {
    let (Ok(slice), Ok(cgroup)) = (Slice::at(path), runtime.cgroups.open(path)) else { return };
    if !is_booted() || !cgroup.exists() || !runtime.cgroups.children(path).is_empty() || !cgroup.procs().is_empty() {
        return;
    }
    if let Err(error) = stop(slice.name()) {
        tracing::warn!(slice = slice.name(), %error, "a slice is left");
    }
}

/// As other failures of cgroups.
fn from(error: SystemdError) -> CgroupError {
    match error {
        SystemdError::Cgroup(error) => error,
        error => told(&error),
    }
}

fn told(error: &impl std::fmt::Display) -> CgroupError {
    CgroupError::Setting { field: "systemd".to_owned(), reason: error.to_string() }
}
