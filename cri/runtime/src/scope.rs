//! The systemd cgroup driver: a container's scope, and the process that holds it until the container's own is there.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_cgroup::{Cgroup, Host};
use berth_cri_core::bundle::resources::Limits;
use berth_cri_core::systemd::{self, Place, Property};
use berth_sys::fork::{self, Birth, Child};
use berth_sys::{fd, process};
use berth_systemd::{Scope, Systemd, SystemdError, with_holder, without_holder};
use oci_spec::runtime::Spec;

use crate::fault::{During, Fault, Outcome};

/// What a configuration says of the container's unit.
#[derive(Debug)]
pub(crate) struct Scoped {
    pub(crate) place: Place,
    /// By annotations.
    properties: Vec<Property>,
}

impl Scoped {
    pub(crate) fn of(spec: &Spec, wanted: Option<&Path>, id: &str, host: &Host) -> Outcome<Self> {
        let named = |fault: Fault| fault.during("--systemd-cgroup");
        berth_systemd::check(host).map_err(|error| named(error.into()))?;
        if process::effective_user() != 0 {
            return Err(named(Fault::new("scopes of a user's own systemd are not supported; run as root")));
        }
        let wanted = wanted.map(Path::to_string_lossy).unwrap_or_default();
        let place = Place::of_cgroups_path(&wanted, id, false)
            .map_err(|error| Fault::new(format!("linux.cgroupsPath: {error}")))?;
        let properties = systemd::properties(spec.annotations().iter().flatten())?;
        Ok(Self { place, properties })
    }
}

/// A scope that is there because of a process of ours.
#[derive(Debug)]
pub(crate) struct Held {
    systemd: Systemd,
    _holder: Holder,
    /// The container's, with room for the holder.
    pub(crate) limits: Limits,
}

impl Held {
    /// The inner error is that the unit or its cgroup is somebody else's, who must not be ended with this container.
    pub(crate) fn start(scoped: &Scoped, id: &str, cgroup: &Cgroup, limits: &Limits) -> Outcome<Result<Self, Fault>> {
        let holder = Holder::start()?;
        let mut systemd = Systemd::connect()?;
        let scope = Scope {
            place: &scoped.place,
            description: &format!("berth-oci container {id}"),
            holder: holder.child.pid,
            resources: &limits.resources,
            settings: &limits.settings,
            extra: &scoped.properties,
        };
        match systemd.start_scope(&scope, cgroup) {
            Err(error @ SystemdError::Taken { .. }) => return Ok(Err(error.into())),
            other => other?,
        }
        let limits = Limits { resources: with_holder(&limits.resources), ..limits.clone() };
        Ok(Ok(Self { systemd, _holder: holder, limits }))
    }

    /// The container's own process holds the scope from now on.
    pub(crate) fn release(self, unit: &str, cgroup: &Cgroup, limits: &Limits) -> Outcome<()> {
        let Self { mut systemd, _holder: holder, .. } = self;
        drop(holder);
        Ok(systemd.limit(unit, cgroup, &without_holder(&limits.resources), &[])?)
    }
}

/// A child that waits for the end of this process, or of this.
#[derive(Debug)]
struct Holder {
    child: Child,
    end: Option<OwnedFd>,
}

impl Holder {
    fn start() -> Outcome<Self> {
        let act = || "fork a process for the scope".to_owned();
        let (reader, writer) = fd::pipe().during(act)?;
        let birth = Birth { descriptors: &[reader.as_fd()], ..Birth::default() };
        let child = fork::spawn(&birth, wait).during(act)?;
        Ok(Self { child, end: Some(writer) })
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.end.take());
        let _ = self.child.pidfd.wait();
    }
}

/// Nothing is ever written; the end comes when the other side's process has gone, however that was.
fn wait(descriptors: Vec<OwnedFd>) -> i32 {
    for reader in descriptors {
        let _ = File::from(reader).read(&mut [0]);
    }
    0
}
